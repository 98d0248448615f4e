//! Cargo features that code asks for in more than one place: as a constant, and as a type.

/// The families other than llama, and the steps that only these families take.
pub(crate) const FAMILIES: bool = cfg!(feature = "families");

/// An optional value that only the families other than llama have: an `Option` with the feature
/// `families`. Without it the value is never there and takes no bytes, and code for it is not in
/// the image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OfFamilies<T>(Inner<T>);

#[cfg(feature = "families")]
type Inner<T> = Option<T>;
#[cfg(not(feature = "families"))]
type Inner<T> = core::marker::PhantomData<T>;

impl<T: Copy> OfFamilies<T> {
    /// No value.
    #[cfg(feature = "families")]
    pub const NONE: Self = OfFamilies(None);
    /// No value.
    #[cfg(not(feature = "families"))]
    pub const NONE: Self = OfFamilies(core::marker::PhantomData);

    /// Wraps a value; without the feature `families` it is left out.
    pub(crate) const fn some(value: T) -> Self {
        #[cfg(feature = "families")]
        return OfFamilies(Some(value));
        #[cfg(not(feature = "families"))]
        {
            let _ = value;
            Self::NONE
        }
    }

    /// Returns the value, if there is one.
    pub const fn get(&self) -> Option<&T> {
        #[cfg(feature = "families")]
        return self.0.as_ref();
        #[cfg(not(feature = "families"))]
        None
    }
}

impl<T: Copy + core::fmt::Debug> core::fmt::Debug for OfFamilies<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(feature = "defmt")]
impl<T: Copy + defmt::Format> defmt::Format for OfFamilies<T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", self.get());
    }
}

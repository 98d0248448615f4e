//! Panics, to see that it reaches the log and resets the board.
#![no_std]
#![no_main]

use brooklet_cortex_m::interrupt::Peripherals;
use brooklet_cortex_m::teller::Teller;
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let _teller = Peripherals::take().map(Teller::new);
    panic!("as it was asked to")
}

//! Whole tokenizers.

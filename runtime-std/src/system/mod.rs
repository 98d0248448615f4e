//! Resources of the operating system and the machine: mapped files, the arena's pages, threads, the
//! instruction set, numbers about memory, work for the end of the process. All unsafe code of this
//! crate is here.

pub mod at_end;
pub mod memory;
pub mod mmap;
pub mod pool;

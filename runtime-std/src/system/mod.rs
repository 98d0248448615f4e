//! Resources of the operating system and the machine: mapped files, the arena's pages, new files,
//! free disk, threads, the instruction set, numbers about memory, work for the end of the process.
//! All unsafe code of this crate is here.

mod arriving;
pub mod at_end;
mod cores;
pub mod disk;
pub mod identity;
pub mod isa;
pub mod machine;
pub mod memory;
pub mod mmap;
pub mod new_file;
pub mod pool;
pub mod running;

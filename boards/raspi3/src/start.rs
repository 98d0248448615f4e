//! From the first instruction to Rust: one core, EL1, the MMU on; the stack, painted to see how
//! deep it gets; exceptions.
#![allow(
    unsafe_code,
    reason = "start-up in assembly, and reading a stack that is in use"
)]

use core::arch::{asm, global_asm};

use aarch64_cpu::registers::{ESR_EL1, FAR_EL1, Readable};
use aarch64_rt::{
    DEFAULT_MAIR, DEFAULT_SCTLR, DEFAULT_TCR, ExceptionHandlers, InitialPagetable,
    RegisterStateRef, exception_handlers, initial_pagetable,
};

// The board's firmware starts core 0 at EL2 and holds the others; QEMU, given an ELF file, starts
// all four at EL3. Both end here. Then aarch64-rt's `entry` turns the MMU on, lets EL1 use NEON,
// clears .bss and sets the stack. x0 to x3 are left as they came.
global_asm!(
    ".section .init.start, \"ax\"",
    ".global start",
    "start:",
    "mrs x9, mpidr_el1",
    "and x9, x9, #3",
    "cbnz x9, 9f",
    "mrs x9, CurrentEL",
    "cmp x9, #(3 << 2)",
    "b.ne 2f",
    // SCR_EL3: below is AArch64 (RW), non-secure (NS), with hypervisor calls (HCE) and without
    // secure monitor calls (SMD).
    "mov x9, #0x5b1",
    "msr scr_el3, x9",
    "msr cptr_el3, xzr",
    // SPSR: to EL2 on its own stack pointer, all interrupts masked.
    "mov x9, #0x3c9",
    "msr spsr_el3, x9",
    "adr x9, 2f",
    "msr elr_el3, x9",
    "eret",
    "2:",
    "mrs x9, CurrentEL",
    "cmp x9, #(2 << 2)",
    "b.ne 1f",
    // HCR_EL2: EL1 is AArch64 (RW), and nothing of it is trapped or translated again.
    "mov x9, #(1 << 31)",
    "msr hcr_el2, x9",
    // CPTR_EL2: no trap of NEON; the other bits are reserved as one.
    "mov x9, #0x33ff",
    "msr cptr_el2, x9",
    // EL1 may read the counter, and its virtual one is the physical one.
    "mov x9, #3",
    "msr cnthctl_el2, x9",
    "msr cntvoff_el2, xzr",
    // SCTLR_EL1: the bits reserved as one; MMU and caches off, as `entry` expects.
    "mov x9, #0x0800",
    "movk x9, #0x30d0, lsl #16",
    "msr sctlr_el1, x9",
    "mov x9, #0x3c5",
    "msr spsr_el2, x9",
    "adr x9, 1f",
    "msr elr_el2, x9",
    "eret",
    "1:",
    // The program uses SP_EL0, so that exceptions find a stack of their own in SP_EL1 when the
    // program's has overflowed.
    "msr spsel, #1",
    "adrp x9, fault_stack_end",
    "add x9, x9, :lo12:fault_stack_end",
    "mov sp, x9",
    "msr spsel, #0",
    "b entry",
    "9:",
    "wfe",
    "b 9b",
    ".previous",
);

/// Bytes that one entry of the page table covers.
const BLOCK: usize = 2 << 20;

/// The last of the blocks from address 0 with the image, as in `link.x`; the next is left unmapped.
const LAST_IMAGE_BLOCK: usize = 30;

/// The block with the stack, as in `link.x`.
const STACK_BLOCK: usize = 32;

/// The first block with devices, up to 1 GiB.
const DEVICE_BLOCK: usize = 0x3F00_0000 / BLOCK;

// Fields of a block's descriptor (Arm DDI 0487, D8.3): valid, accessed, shared by the cores, never
// run as code.
const VALID: usize = 1;
const ACCESSED: usize = 1 << 10;
const INNER_SHAREABLE: usize = 3 << 8;
const NEVER_CODE: usize = 3 << 53;
// Index of a byte of DEFAULT_MAIR: 0 is device memory, 1 is write-back cacheable memory, where
// unaligned access is allowed.
const DEVICE: usize = VALID | ACCESSED | NEVER_CODE;
const MEMORY: usize = VALID | ACCESSED | INNER_SHAREABLE | 1 << 2;

/// Translates each address to itself.
const fn page_table() -> [usize; 512] {
    let mut entries = [0; 512];
    let mut block = 0;
    while block < entries.len() {
        let kind = match block {
            ..=LAST_IMAGE_BLOCK => MEMORY,
            STACK_BLOCK => MEMORY | NEVER_CODE,
            DEVICE_BLOCK.. => DEVICE,
            _ => 0,
        };
        if kind != 0 {
            entries[block] = (block * BLOCK) | kind;
        }
        block += 1;
    }
    entries
}

// Addresses of 30 bits: translation starts at level 2, so that one table of 2 MiB blocks is all.
const TCR: u64 = DEFAULT_TCR & !0x3f | (64 - 30);

initial_pagetable!(
    InitialPagetable(page_table()),
    DEFAULT_MAIR,
    DEFAULT_SCTLR,
    TCR
);

exception_handlers!(Exceptions);

/// Faults end in the panic handler; interrupts stay masked.
struct Exceptions;

impl ExceptionHandlers for Exceptions {
    extern "C" fn sync_current(state: RegisterStateRef) {
        let (syndrome, address) = (ESR_EL1.get(), FAR_EL1.get());
        panic!(
            "exception {syndrome:#x} at {:#x}, address {address:#x}",
            state.elr
        );
    }
}

unsafe extern "C" {
    static boot_stack_begin: u8;
    static boot_stack_end: u8;
}

/// Value of a word of the stack that was never used.
const PAINT: u64 = 0x7061_696e_7470_6169;

/// Paints the part of the stack that is not in use.
pub fn paint_stack() {
    // SAFETY: the words from the start of the stack to the stack pointer belong to nobody (the ABI
    // for bare metal has no red zone, and without `nostack` the compiler keeps nothing there); both
    // bounds are multiples of 16.
    unsafe {
        asm!(
            "mov {end}, sp",
            "2:",
            "cmp {at}, {end}",
            "b.hs 3f",
            "stp {paint}, {paint}, [{at}], #16",
            "b 2b",
            "3:",
            at = inout(reg) &raw const boot_stack_begin => _,
            end = out(reg) _,
            paint = in(reg) PAINT,
        );
    }
}

/// Bytes of the stack: the most that were in use since it was painted, and all.
pub fn stack_used() -> (usize, usize) {
    let (begin, end) = (&raw const boot_stack_begin, &raw const boot_stack_end);
    let all = end.addr() - begin.addr();
    let words = begin.cast::<u64>();
    let unused = (0..all / 8)
        // SAFETY: the word lies within the stack, which is mapped and starts at a page; it is read
        // as memory that may change.
        .take_while(|word| unsafe { words.add(*word).read_volatile() } == PAINT)
        .count();
    (all - 8 * unused, all)
}

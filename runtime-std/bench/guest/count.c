/* Counts the instructions that a program for 64-bit Arm executes under QEMU: prints "guest_instructions N" when it ends, and
 * "guest_instructions_so_far N" whenever it writes to standard output. With the argument `blocks=FILE` it also writes to that file, for
 * each block of code that was executed, "ADDRESS INSTRUCTIONS TIMES", the address from the start of the program's code; by_function.py
 * reads that.
 *
 * The declarations are those of QEMU's plugin interface, version 1 (docs/devel/tcg-plugins), written out because distributions
 * do not ship the header. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info_t;
enum { INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_start_code(void);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation, void *counter, uint64_t by);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, void (*called)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t,
                                                                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*end)(qemu_plugin_id_t, void *), void *data);

EXPORT int qemu_plugin_version = 1;

/* A block as it was translated. The same code is translated again after QEMU has thrown its translations away. */
struct block {
    struct block *next;
    uint64_t address, instructions, times;
};

static uint64_t executed;
static struct block *blocks;
static const char *blocks_path;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *code)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(code, INLINE_ADD_U64, &executed, qemu_plugin_tb_n_insns(code));
    struct block *block = blocks_path ? calloc(1, sizeof *block) : NULL;
    if (block) {
        block->next = blocks;
        block->address = qemu_plugin_tb_vaddr(code);
        block->instructions = qemu_plugin_tb_n_insns(code);
        blocks = block;
        qemu_plugin_register_vcpu_tb_exec_inline(code, INLINE_ADD_U64, &block->times, 1);
    }
}

static void called(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t file, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                   uint64_t f, uint64_t g, uint64_t h)
{
    const int64_t write = 64;
    (void)id, (void)cpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == write && file == 1)
        fprintf(stderr, "guest_instructions_so_far %" PRIu64 "\n", executed);
}

static void end(qemu_plugin_id_t id, void *data)
{
    (void)id;
    (void)data;
    fprintf(stderr, "guest_instructions %" PRIu64 "\n", executed);
    FILE *file = blocks_path ? fopen(blocks_path, "w") : NULL;
    if (blocks_path && !file)
        perror(blocks_path);
    for (struct block *block = file ? blocks : NULL; block; block = block->next)
        if (block->times)
            fprintf(file, "%" PRId64 " %" PRIu64 " %" PRIu64 "\n", (int64_t)(block->address - qemu_plugin_start_code()),
                    block->instructions, block->times);
    if (file && fclose(file))
        perror(blocks_path);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "blocks=", 7)) {
            fprintf(stderr, "unknown argument %s; there is blocks=FILE\n", argv[i]);
            return 1;
        }
        blocks_path = strdup(argv[i] + 7);
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, end, NULL);
    return 0;
}

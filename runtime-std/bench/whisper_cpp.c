/* Captions by whisper.cpp's library, for `captions.py`: text on standard output.
 *
 *     whisper_cpp MODEL.bin SAMPLES THREADS BEAM
 *
 * On standard error: milliseconds of the encoder for a window of 30 s, and of the decoder for a token (single ones; with BEAM others count).
 * SAMPLES is a file of raw f32, one channel of 16,000 a second; BEAM 1 is greedy. Without earlier text,
 * and without second tries, as the other programs are run there; flash attention is on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <whisper.h>

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)level, (void)text, (void)data;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL.bin SAMPLES THREADS BEAM\n", argv[0]);
        return 2;
    }
    whisper_log_set(quiet, NULL);
    FILE *file = fopen(argv[2], "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(argv[2]);
        return 1;
    }
    size_t count = (size_t)ftell(file) / sizeof(float);
    float *samples = malloc(count * sizeof(float));
    rewind(file);
    if (samples == NULL || fread(samples, sizeof(float), count, file) != count) {
        perror(argv[2]);
        return 1;
    }
    fclose(file);
    struct whisper_context_params context = whisper_context_default_params();
    context.use_gpu = false;
    context.flash_attn = true;
    struct whisper_context *model = whisper_init_from_file_with_params(argv[1], context);
    if (model == NULL) {
        fprintf(stderr, "%s cannot be loaded\n", argv[1]);
        return 1;
    }
    int beam = atoi(argv[4]);
    struct whisper_full_params how = whisper_full_default_params(beam > 1 ? WHISPER_SAMPLING_BEAM_SEARCH : WHISPER_SAMPLING_GREEDY);
    how.n_threads = atoi(argv[3]);
    how.beam_search.beam_size = beam;
    how.greedy.best_of = 1;
    how.language = "en";
    how.no_context = true;
    how.temperature_inc = 0.0f;
    how.print_progress = how.print_realtime = how.print_timestamps = how.print_special = false;
    if (whisper_full(model, how, samples, (int)count) != 0) {
        fprintf(stderr, "it has failed\n");
        return 1;
    }
    for (int i = 0; i < whisper_full_n_segments(model); i++) {
        printf("%s\n", whisper_full_get_segment_text(model, i));
    }
    struct whisper_timings *times = whisper_get_timings(model);
    if (times != NULL) {
        fprintf(stderr, "encoder %.1f ms a half minute, decoder %.2f ms a token\n", times->encode_ms, times->decode_ms);
    }
    whisper_free(model);
    free(samples);
    return 0;
}

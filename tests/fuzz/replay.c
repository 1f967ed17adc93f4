/* Runs a target over the files that it is given, and over those of the folders; for builds without libFuzzer. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

static size_t runs;

static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    if (!file || fstat(fileno(file), &status) != 0) {
        perror(path);
        exit(1);
    }
    size_t size = (size_t)status.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1);
    ASSERT(data && fread(data, 1, size, file) == size);
    fclose(file);
    printf("%s\n", path);
    fflush(stdout); /* names the culprit if the next line does not come back */
    ASSERT(LLVMFuzzerTestOneInput(data, size) == 0);
    free(data);
    runs++;
}

static void run_folder(const char *path, DIR *folder)
{
    for (const struct dirent *entry; (entry = readdir(folder));) {
        char file[4096];
        if (entry->d_name[0] != '.') {
            snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
            run_file(file);
        }
    }
}

int main(int argc, char **argv)
{
    ASSERT(LLVMFuzzerTestOneInput((const uint8_t *)"", 0) == 0);
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        struct stat status;
        if (folder) {
            run_folder(argv[i], folder);
            closedir(folder);
        } else if (stat(argv[i], &status) == 0) {
            run_file(argv[i]);
        } /* a folder without files is none in git: a target that never failed has no regressions */
    }
    printf("%zu inputs\n", runs);
    return runs > 0 ? 0 : 1;
}

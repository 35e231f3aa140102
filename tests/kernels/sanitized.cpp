// Appended to a kernel's source: a program that launches it once as a file says, so that a sanitizer
// can watch. Each array gets memory of its own, so that no access beyond it goes unseen; one without
// bytes is a null pointer. What the arrays hold in the end is written back into the file.
#include <stdio.h>

template <typename T>
T read(FILE* file) {
    T value{};
    if (fread(&value, sizeof(T), 1, file) != 1) perror("reading");
    return value;
}

int main(int, char** arguments) {
    FILE* file = fopen(arguments[1], "r+b");
    unsigned sizes[6];
    for (unsigned& size : sizes) size = read<unsigned>(file);
    const auto shared = read<uint64_t>(file);
    const auto order = read<unsigned>(file), cooperative = read<unsigned>(file);
    const long start = ftell(file);
    const char* letters = signature_0();
    const size_t count = strlen(letters);
    uint64_t* bytes = new uint64_t[count];
    char** arrays = new char*[count];
    void** pointers = new void*[count];
    for (size_t k = 0; k < count; ++k) {
        bytes[k] = read<uint64_t>(file);
        arrays[k] = bytes[k] ? new char[bytes[k]] : nullptr;
        if (fread(arrays[k], 1, bytes[k], file) != bytes[k]) perror("reading");
        pointers[k] = letters[k] == 'P' ? static_cast<void*>(&arrays[k]) : arrays[k];
    }
    const char* problem = launch_0(sizes, sizes + 3, shared, pointers, order, cooperative);
    if (problem) fprintf(stderr, "%s\n", problem);
    fseek(file, start, SEEK_SET);
    for (size_t k = 0; k < count; ++k) {
        fwrite(&bytes[k], sizeof(uint64_t), 1, file);
        fwrite(arrays[k], 1, bytes[k], file);
    }
    fclose(file);
    return problem != nullptr;
}

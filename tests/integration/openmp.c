/* dlsym from the threads of an OpenMP program; compiled by tests/integration/manners where the compiler has OpenMP. */
#include <dlfcn.h>
#include <stdio.h>

int main(void)
{
    int trouble = 0;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
#pragma omp parallel for reduction(+ : trouble)
    for (int i = 0; i < 4000; i++)
        trouble += !dlsym(driver, "cuMemAlloc_v2") || !dlsym(RTLD_DEFAULT, "strlen") || dlsym(driver, "cuNoSuchThing");
    printf("trouble %d\n", trouble);
    return trouble != 0;
}

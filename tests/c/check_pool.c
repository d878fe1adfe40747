/* The checks of the pool alone, for tests/test_pool.py: compiled with parallel.c and pool.c. */
#include "check_pool.h"

int main(void) { return check_pool(1000, 1) != 0; }

/* Pages of memory, page faults and threads of the checks: POSIX's or those of Windows. */
#ifndef CHECK_PAGES_H
#define CHECK_PAGES_H

#include "system.h"

#include <stddef.h>
#include <string.h>

static const char *running = "nothing"; /* what to name when a page fault ends the program */

#if defined(_WIN32)

static LONG CALLBACK on_fault(EXCEPTION_POINTERS *fault) {
    static const char text[] = "FAILED: a read or write outside of the arrays, or to an input, in ";
    const HANDLE out = GetStdHandle(STD_ERROR_HANDLE);
    DWORD n;
    if (fault->ExceptionRecord->ExceptionCode != EXCEPTION_ACCESS_VIOLATION)
        return EXCEPTION_CONTINUE_SEARCH;
    WriteFile(out, text, sizeof text - 1, &n, NULL);
    WriteFile(out, running, (DWORD)strlen(running), &n, NULL);
    WriteFile(out, "\r\n", 2, &n, NULL);
    TerminateProcess(GetCurrentProcess(), 2);
    return EXCEPTION_CONTINUE_SEARCH;
}

static void watch_faults(void) { AddVectoredExceptionHandler(1, on_fault); }

static size_t page_size(void) {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

/* size bytes of whole pages, and a page behind them that may not be touched; NULL without memory */
static unsigned char *map_fenced(size_t size) {
    DWORD before;
    unsigned char *memory =
        VirtualAlloc(NULL, size + page_size(), MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!memory || !VirtualProtect(memory + size, page_size(), PAGE_NOACCESS, &before)) return NULL;
    return memory;
}

static void seal_pages(unsigned char *memory, size_t size) {
    DWORD before;
    VirtualProtect(memory, size, PAGE_READONLY, &before);
}

static void unmap_fenced(unsigned char *memory, size_t size) {
    (void)size;
    VirtualFree(memory, 0, MEM_RELEASE);
}

typedef HANDLE check_thread;

static int start_check(check_thread *thread, fs_thread_result(FS_THREAD_CALL *body)(void *),
                       void *argument) {
    *thread = (HANDLE)_beginthreadex(NULL, 0, body, argument, 0, NULL);
    return *thread != NULL;
}

static void join_check(check_thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

static void rest(int milliseconds) { Sleep((DWORD)milliseconds); }

#else

#include <sys/mman.h>

static void on_fault(int signal_number) {
    static const char text[] = "FAILED: a read or write outside of the arrays, or to an input, in ";
    (void)signal_number;
    if (write(2, text, sizeof text - 1) < 0 || write(2, running, strlen(running)) < 0 ||
        write(2, "\n", 1) < 0)
        _exit(3);
    _exit(2);
}

static void watch_faults(void) {
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
}

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* size bytes of whole pages, and a page behind them that may not be touched; NULL without memory */
static unsigned char *map_fenced(size_t size) {
    unsigned char *memory =
        mmap(NULL, size + page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + size, page_size(), PROT_NONE) != 0) return NULL;
    return memory;
}

static void seal_pages(unsigned char *memory, size_t size) { mprotect(memory, size, PROT_READ); }

static void unmap_fenced(unsigned char *memory, size_t size) { munmap(memory, size + page_size()); }

typedef pthread_t check_thread;

static int start_check(check_thread *thread, fs_thread_result (*body)(void *), void *argument) {
    return pthread_create(thread, NULL, body, argument) == 0;
}

static void join_check(check_thread thread) { pthread_join(thread, NULL); }

static void rest(int milliseconds) {
    const struct timespec time = {0, 1000000L * milliseconds};
    nanosleep(&time, NULL);
}

#endif
#endif

/* Preloaded into a program: says so on standard error and ends it when it detaches a thread. */
#include <pthread.h>
#include <unistd.h>

static void say(const char *text, size_t length) {
  if (write(2, text, length) < 0)
    _exit(91);
}

__attribute__((constructor)) static void watch(void) {
  static const char text[] = "threads are watched\n";
  say(text, sizeof text - 1);
}

int pthread_detach(pthread_t thread) {
  static const char text[] = "a thread was detached\n";
  (void)thread;
  say(text, sizeof text - 1);
  _exit(90);
}

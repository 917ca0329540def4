#include "status.h"

#include <stdarg.h>
#include <stdio.h>

namespace gg {

static thread_local char message[512] = "";

gg_status fail(gg_status code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return code;
}

}  // namespace gg

extern "C" const char* gg_message(void) { return gg::message; }

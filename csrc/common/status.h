// How a call says what went wrong: a code returned, a message kept for the calling thread.
#pragma once

#include "../graphgen.h"

namespace gg {

gg_status fail(gg_status code, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace gg

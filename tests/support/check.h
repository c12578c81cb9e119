/* cmocka with the headers it needs, and the assertions that every test uses. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The call must return DURE_OK, or exactly `err`. */
#define assert_ok(call) assert_int_equal((call), DURE_OK)
#define assert_err(call, err) assert_int_equal((call), (err))

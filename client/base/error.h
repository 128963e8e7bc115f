/* SPDX-License-Identifier: Apache-2.0
 * The reason of this thread's last failed call (sluice_last_error). */
#ifndef SLUICE_CLIENT_BASE_ERROR_H
#define SLUICE_CLIENT_BASE_ERROR_H

enum { TEXT_MAX = 512 };

/* Returns code; 0 changes nothing; text NULL or "": the code's. */
int error_set(int code, const char *text);
int error_format(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

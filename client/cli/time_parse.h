/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SLUICE_CLI_TIME_PARSE_H
#define SLUICE_CLI_TIME_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* Converts a time in RFC 3339 format to ms since 1970: "2026-11-24T10:30:05.25+02:00", "...Z"; a
 * space may replace the 'T', letters may be lower case; seconds, and the time of day, may be
 * omitted. Without Z or an offset it is local time. False: malformed, before 1970, or it does not
 * exist (30 February, 24:00, an hour skipped by daylight saving time). */
bool time_parse(const char *text, uint64_t *ret_ms);

#endif

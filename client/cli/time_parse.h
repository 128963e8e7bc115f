/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SLUICE_CLI_TIME_PARSE_H
#define SLUICE_CLI_TIME_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* A point of time as RFC 3339 writes it, to ms since 1970: "2026-11-24T10:30:05.25+02:00", "...Z";
 * 'T' may be a blank, letters small; seconds, and the time of day, may be left out. Without Z or an
 * offset it is local time. False: it is none, lies before 1970, or does not exist (30 February,
 * 24:00, an hour that summer time skips). */
bool time_parse(const char *text, uint64_t *ret_ms);

#endif

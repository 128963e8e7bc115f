/* SPDX-License-Identifier: Apache-2.0
 * See time_parse.h. */
#include "time_parse.h"

#include <stddef.h>
#include <time.h>

/* `digits` digits, from min to max. */
static bool number(const char **io_at, int digits, int min, int max, int *ret)
{
	int value = 0;

	for (int i = 0; i < digits; i++, ++*io_at) {
		if (**io_at < '0' || **io_at > '9')
			return false;
		value = value * 10 + (**io_at - '0');
	}
	*ret = value;
	return value >= min && value <= max;
}

static bool sign(const char **io_at, const char *one_of)
{
	for (; *one_of != 0; one_of++) {
		if (**io_at == *one_of) {
			++*io_at;
			return true;
		}
	}
	return false;
}

static bool date(const char **io_at, struct tm *ret)
{
	if (!number(io_at, 4, 1970, 9999, &ret->tm_year) || !sign(io_at, "-") ||
	    !number(io_at, 2, 1, 12, &ret->tm_mon) || !sign(io_at, "-") ||
	    !number(io_at, 2, 1, 31, &ret->tm_mday))
		return false;
	ret->tm_year -= 1900;
	ret->tm_mon--;
	return true;
}

/* Up to ms; further digits are cut off. */
static bool fraction(const char **io_at, int *ret_ms)
{
	int weight = 100;

	if (**io_at < '0' || **io_at > '9')
		return false;
	for (; **io_at >= '0' && **io_at <= '9'; ++*io_at, weight /= 10)
		*ret_ms += (**io_at - '0') * weight;
	return true;
}

static bool time_of_day(const char **io_at, struct tm *ret, int *ret_ms)
{
	if (!number(io_at, 2, 0, 23, &ret->tm_hour) || !sign(io_at, ":") ||
	    !number(io_at, 2, 0, 59, &ret->tm_min))
		return false;
	if (!sign(io_at, ":"))
		return true;
	/* 60: a leap second, which RFC 3339 has. */
	return number(io_at, 2, 0, 60, &ret->tm_sec) &&
	       (!sign(io_at, ".,") || fraction(io_at, ret_ms));
}

/* Z, +02:00 or nothing. */
static bool zone(const char **io_at, bool *ret_local, int *ret_offset_s)
{
	int hours, minutes;
	bool minus = **io_at == '-';

	*ret_local = **io_at == 0;
	*ret_offset_s = 0;
	if (*ret_local || sign(io_at, "Zz"))
		return true;
	if (!sign(io_at, "+-") || !number(io_at, 2, 0, 23, &hours) || !sign(io_at, ":") ||
	    !number(io_at, 2, 0, 59, &minutes))
		return false;
	*ret_offset_s = (hours * 60 + minutes) * (minus ? -60 : 60);
	return true;
}

/* The C library converts 30 February to 2 March: a time that is changed by the conversion does not
 * exist. */
static bool exists(const struct tm *asked, const struct tm *got)
{
	return asked->tm_year == got->tm_year && asked->tm_mon == got->tm_mon &&
	       asked->tm_mday == got->tm_mday && asked->tm_hour == got->tm_hour &&
	       asked->tm_min == got->tm_min;
}

bool time_parse(const char *text, uint64_t *ret_ms)
{
	struct tm parts = {.tm_isdst = -1}, asked;
	bool local = true;
	int ms = 0, offset_s = 0;
	time_t seconds;

	if (!date(&text, &parts))
		return false;
	if (sign(&text, "Tt ") &&
	    (!time_of_day(&text, &parts, &ms) || !zone(&text, &local, &offset_s)))
		return false;
	if (*text != 0)
		return false;
	if (parts.tm_sec == 60)
		parts.tm_sec = 59;
	asked = parts;
	seconds = local ? mktime(&parts) : timegm(&parts);
	if (!exists(&asked, &parts) || seconds < offset_s)
		return false;
	*ret_ms = (uint64_t)(seconds - offset_s) * 1000 + (uint64_t)ms;
	return true;
}

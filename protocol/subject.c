/* SPDX-License-Identifier: Apache-2.0
 * Subjects, patterns and names. */
#include "protocol/envelope.h"

#include <string.h>

#include "protocol/limits.h"
#include "protocol/utf8.h"

static int say(const char **ret_why, int code, const char *why)
{
	*ret_why = why;
	return code;
}

static int text_check(struct sluice_slice text, const char **ret_why)
{
	const uint8_t *at = text.data;

	for (size_t i = 0; i < text.len;) {
		size_t len = utf8_length(at + i, text.len - i);

		if (len == 0)
			return say(ret_why, SLUICE_E_INVAL, "it is not valid UTF-8");
		if (at[i] < 0x20 || at[i] == 0x7f ||
		    (len == 2 && at[i] == 0xc2 && at[i + 1] < 0xa0))
			return say(ret_why, SLUICE_E_INVAL, "it has control characters");
		i += len;
	}
	return 0;
}

static int tokens_check(struct sluice_slice subject, bool pattern, const char **ret_why)
{
	const char *at = subject.data;
	size_t token = 0, tokens = 1;
	int rc;

	if (subject.len == 0)
		return say(ret_why, SLUICE_E_INVAL, "it is empty; expected dot-separated tokens");
	if (subject.len > LIMIT_SUBJECT_BYTES_MAX)
		return say(ret_why, SLUICE_E_LIMIT, "it is longer than SUBJECT_BYTES_MAX");
	rc = text_check(subject, ret_why);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i <= subject.len; i++) {
		bool wild;

		if (i < subject.len && at[i] == ' ')
			return say(ret_why, SLUICE_E_INVAL, "it has a space");
		if (i < subject.len && at[i] != '.')
			continue;
		if (i == token)
			return say(ret_why, SLUICE_E_INVAL, "it has an empty token");
		wild = memchr(at + token, '*', i - token) != NULL ||
		       memchr(at + token, '>', i - token) != NULL;
		if (wild && !pattern)
			return say(ret_why, SLUICE_E_INVAL, "'*' and '>' are for patterns only");
		if (wild && i - token != 1)
			return say(ret_why, SLUICE_E_INVAL, "'*' and '>' must be whole tokens");
		if (wild && at[token] == '>' && i != subject.len)
			return say(ret_why, SLUICE_E_INVAL, "'>' must be the last token");
		token = i + 1;
		if (i < subject.len && ++tokens > LIMIT_SUBJECT_TOKENS_MAX)
			return say(ret_why, SLUICE_E_LIMIT,
				   "it has more tokens than SUBJECT_TOKENS_MAX");
	}
	return 0;
}

int subject_check(struct sluice_slice subject, const char **ret_why)
{
	return tokens_check(subject, false, ret_why);
}

int pattern_check(struct sluice_slice pattern, const char **ret_why)
{
	return tokens_check(pattern, true, ret_why);
}

bool pattern_matches(struct sluice_slice pattern, struct sluice_slice subject)
{
	const char *p = pattern.data, *s = subject.data;
	size_t i = 0, j = 0;

	/* Token by token; '*' takes exactly one, so there is nothing to come back to. */
	while (i < pattern.len && j < subject.len) {
		if (p[i] == '>')
			return true;
		if (p[i] == '*') {
			i++;
			while (j < subject.len && s[j] != '.')
				j++;
		} else {
			while (i < pattern.len && j < subject.len && p[i] != '.' && p[i] == s[j]) {
				i++;
				j++;
			}
		}
		if (i == pattern.len || j == subject.len)
			return i == pattern.len && j == subject.len;
		if (p[i] != '.' || s[j] != '.')
			return false;
		i++;
		j++;
	}
	return false;
}

int name_check(struct sluice_slice name, const char **ret_why)
{
	const char *at = name.data;

	if (name.len == 0)
		return say(ret_why, SLUICE_E_INVAL, "the name is empty");
	if (name.len > LIMIT_NAME_BYTES_MAX)
		return say(ret_why, SLUICE_E_LIMIT, "the name is longer than NAME_BYTES_MAX");
	if (at[0] == ' ' || at[name.len - 1] == ' ')
		return say(ret_why, SLUICE_E_INVAL, "the name begins or ends with a space");
	return text_check(name, ret_why);
}

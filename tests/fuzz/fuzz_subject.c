/* SPDX-License-Identifier: Apache-2.0
 * A pattern, a newline, a subject: both are checked as SPEC.md defines, and matched as an oracle by
 * tokens does. */
#include "fuzz.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

/* The next token of *io, which is moved past its dot; *ret_last: there is no dot. */
static struct sluice_slice token(struct sluice_slice *io, bool *ret_last)
{
	const uint8_t *dot = io->len > 0 ? memchr(io->data, '.', io->len) : NULL;
	struct sluice_slice found =
		take_bytes(io, dot != NULL ? (size_t)(dot - (const uint8_t *)io->data) : io->len);

	*ret_last = dot == NULL;
	if (dot != NULL)
		(void)take_bytes(io, 1);
	return found;
}

static bool is(struct sluice_slice slice, char c)
{
	return slice.len == 1 && *(const char *)slice.data == c;
}

static bool oracle(struct sluice_slice pattern, struct sluice_slice subject)
{
	for (;;) {
		bool pattern_last, subject_last;
		struct sluice_slice p = token(&pattern, &pattern_last),
				    s = token(&subject, &subject_last);

		if (is(p, '>'))
			return true;
		if (!is(p, '*') && !same(p, s))
			return false;
		if (pattern_last || subject_last)
			return pattern_last && subject_last;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
	struct sluice_slice subject = {data, size},
			    pattern =
				    take_bytes(&subject, newline != NULL ? (size_t)(newline - data)
									 : size / 2);
	const char *why = NULL;
	bool good_pattern = pattern_check(pattern, &why) == 0, good_subject, matches;

	REQUIRE(good_pattern || why != NULL);
	if (newline != NULL)
		(void)take_bytes(&subject, 1);
	good_subject = subject_check(subject, &why) == 0;
	REQUIRE(!good_subject ||
		(pattern_check(subject, &why) == 0 && subject.len <= LIMIT_SUBJECT_BYTES_MAX));
	/* Every subject is also a name; a name may have dots, spaces and wildcards that a subject
	 * may not. */
	REQUIRE(!good_subject || name_check(subject, &why) == 0);
	(void)name_check(pattern, &why);
	/* Memory safe for every input; correct for inputs that passed the checks. */
	matches = pattern_matches(pattern, subject);
	if (good_pattern && good_subject)
		REQUIRE(matches == oracle(pattern, subject));
	return 0;
}

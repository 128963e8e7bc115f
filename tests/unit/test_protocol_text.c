/* SPDX-License-Identifier: Apache-2.0
 * Text from any bytes: the result is UTF-8 without NUL, for every input and every cut. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/text.h"
#include "protocol/utf8.h"

#define SLICE(literal) ((struct sluice_slice){literal, sizeof(literal) - 1})

static void made(struct sluice_slice from, size_t size, const char *expected)
{
	char to[64];

	memset(to, 'x', sizeof(to));
	cr_assert_eq(text_make(to, size, from), strlen(expected));
	cr_assert_str_eq(to, expected);
	cr_assert_eq(to[size], 'x', "it wrote beyond its size");
}

Test(text, bad_bytes_become_the_replacement_character)
{
	made(SLICE("plain"), 63, "plain");
	made(SLICE("fichier \xe9"
		   "crit"),
	     63,
	     "fichier \xef\xbf\xbd"
	     "crit");
	made(SLICE("a\0b"), 63,
	     "a\xef\xbf\xbd"
	     "b");
	made(SLICE("\xed\xa0\x80"), 63, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
	made(SLICE(""), 63, "");
	made((struct sluice_slice){NULL, 0}, 63, "");
	cr_assert_eq(text_size(SLICE("a\xff")), 1 + 3 + 1);
	cr_assert_eq(text_size(SLICE("\xe2\x82\xac")), 4);
}

Test(text, a_cut_never_goes_through_a_character)
{
	made(SLICE("ab\xe2\x82\xac"), 6, "ab\xe2\x82\xac");
	made(SLICE("ab\xe2\x82\xac"), 5, "ab");
	made(SLICE("ab\xe2\x82\xac"), 3, "ab");
	made(SLICE("ab\xff"), 5, "ab"); /* the replacement has three bytes */
	made(SLICE("ab"), 1, "");
}

static void mended(const char *from, const char *expected)
{
	char text[64];

	strcpy(text, from);
	text_repair(text);
	cr_assert_str_eq(text, expected);
}

Test(text, a_formatted_buffer_is_repaired_in_place)
{
	mended("ab\xe2\x82", "ab"); /* cut inside of its last character */
	mended("ab\xc3", "ab");
	mended("ab\xe2\x82\xac", "ab\xe2\x82\xac");
	mended("a\xe9"
	       "b",
	       "a?b");
	mended("\xff", "");
	mended("", "");
}

static void cut(const char *from, size_t max, const char *expected)
{
	char text[64];

	strcpy(text, from);
	text_cut(text, max);
	cr_assert_str_eq(text, expected);
}

Test(text, a_text_is_cut_between_characters)
{
	cut("abc", 3, "abc");
	cut("abc", 2, "ab");
	cut("a\xe2\x82\xac"
	    "b",
	    4, "a\xe2\x82\xac");
	cut("a\xe2\x82\xac"
	    "b",
	    3, "a");
	cut("a\xe2\x82\xac"
	    "b",
	    2, "a");
	cut("a\xe2\x82\xac"
	    "b",
	    1, "a");
	cut("\xe2\x82\xac", 0, "");
	cut("\x80\x80\x80\x80\x80", 3, "\x80\x80\x80"); /* no character that could be cut */
}

/* Every string of three of the significant bytes, and every size. */
Test(text, the_result_is_utf8_for_any_input)
{
	static const uint8_t some[] = {0x00, 'a',  0x7f, 0x80, 0xbf, 0xc0, 0xc3,
				       0xe0, 0xe2, 0xed, 0xf0, 0xf4, 0xff};
	enum { COUNT = sizeof(some), TRIES = COUNT * COUNT * COUNT * COUNT };

	for (size_t n = 0; n < TRIES; n++) {
		uint8_t in[4] = {some[n % COUNT], some[n / COUNT % COUNT],
				 some[n / COUNT / COUNT % COUNT], some[n / COUNT / COUNT / COUNT]};
		struct sluice_slice from = {in, 4};
		char out[16], terminated[5];

		for (size_t size = 1; size <= sizeof(out); size++) {
			size_t len = text_make(out, size, from);

			cr_assert(len < size && out[len] == 0);
			cr_assert(utf8_valid((struct sluice_slice){out, len}));
			cr_assert(size < text_size(from) || len == text_size(from) - 1);
		}
		memcpy(terminated, in, 4);
		terminated[4] = 0;
		text_repair(terminated);
		cr_assert(utf8_valid((struct sluice_slice){terminated, strlen(terminated)}));
		(void)text_repair_bytes(in, 4);
		cr_assert(utf8_valid(from));
	}
}

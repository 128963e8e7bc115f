/* SPDX-License-Identifier: Apache-2.0
 *
 * Event envelopes: a small part of msgpack, walked without allocation. The shortest form of every
 * number and length is required, so equal events have equal bytes; what a longer form would say is
 * refused by name.
 */
#include "protocol/envelope.h"

#include "protocol/bytes.h"
#include "protocol/limits.h"

enum {
	MP_NIL = 0xc0,
	MP_BIN8 = 0xc4,
	MP_BIN16,
	MP_BIN32,
	MP_U8 = 0xcc,
	MP_U16,
	MP_U32,
	MP_U64,
	MP_I8,
	MP_I16,
	MP_I32,
	MP_I64,
	MP_STR8 = 0xd9,
	MP_STR16,
	MP_STR32,
	MP_MAP16 = 0xde
};
enum { FIELDS_MIN = 2, FIELDS_MAX = 7 };

struct walk {
	const uint8_t *at, *end;
	const char *why; /* set by the first thing that is wrong */
	int code;
};

static void wrong(struct walk *walk, int code, const char *why)
{
	if (walk->why == NULL) {
		walk->why = why;
		walk->code = code;
	}
	walk->at = walk->end;
}

static uint64_t number(struct walk *walk, size_t bytes)
{
	uint64_t value = 0;

	if ((size_t)(walk->end - walk->at) < bytes) {
		wrong(walk, SLUICE_E_PROTOCOL, "an envelope is cut short");
		return 0;
	}
	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | walk->at[i];
	walk->at += bytes;
	return value;
}

static struct sluice_slice take(struct walk *walk, uint64_t len)
{
	struct sluice_slice bytes = {walk->at, (size_t)len};

	if ((uint64_t)(walk->end - walk->at) < len) {
		wrong(walk, SLUICE_E_PROTOCOL, "an envelope is cut short");
		return (struct sluice_slice){NULL, 0};
	}
	walk->at += len;
	return bytes;
}

static struct sluice_slice binary(struct walk *walk)
{
	uint8_t type = (uint8_t)number(walk, 1);
	uint64_t len;

	if (type == MP_BIN8) {
		return take(walk, number(walk, 1));
	} else if (type == MP_BIN16) {
		len = number(walk, 2);
		if (len < 1u << 8)
			wrong(walk, SLUICE_E_PROTOCOL,
			      "a binary length is not in its shortest form");
	} else if (type == MP_BIN32) {
		len = number(walk, 4);
		if (len < 1u << 16)
			wrong(walk, SLUICE_E_PROTOCOL,
			      "a binary length is not in its shortest form");
	} else {
		wrong(walk, SLUICE_E_PROTOCOL,
		      "an envelope has another type where binary is expected");
		return (struct sluice_slice){NULL, 0};
	}
	return take(walk, len);
}

static struct sluice_slice string(struct walk *walk)
{
	uint8_t type = (uint8_t)number(walk, 1);
	uint64_t len;

	if ((type & 0xe0) == 0xa0)
		return take(walk, type & 0x1f);
	if (type == MP_STR8) {
		len = number(walk, 1);
		if (len < 32)
			wrong(walk, SLUICE_E_PROTOCOL,
			      "a string length is not in its shortest form");
	} else if (type == MP_STR16) {
		len = number(walk, 2);
		if (len < 1u << 8)
			wrong(walk, SLUICE_E_PROTOCOL,
			      "a string length is not in its shortest form");
	} else if (type == MP_STR32) {
		len = number(walk, 4);
		if (len < 1u << 16)
			wrong(walk, SLUICE_E_PROTOCOL,
			      "a string length is not in its shortest form");
	} else {
		wrong(walk, SLUICE_E_PROTOCOL,
		      "an envelope has another type where a string is expected");
		return (struct sluice_slice){NULL, 0};
	}
	return take(walk, len);
}

static bool nil(struct walk *walk)
{
	if (walk->at == walk->end || *walk->at != MP_NIL)
		return false;
	walk->at++;
	return true;
}

static int64_t integer(struct walk *walk)
{
	/* The least value, unsigned or magnitude, that each width is needed for. */
	static const uint64_t unsigned_min[] = {0x80, 0x100, 0x10000, 0x100000000};
	static const int64_t signed_max[] = {-33, -129, -32769, -2147483649};
	uint8_t type = (uint8_t)number(walk, 1);
	size_t power;

	if (type < 0x80)
		return type;
	if (type >= 0xe0)
		return (int8_t)type;
	if (type >= MP_U8 && type <= MP_U64) {
		uint64_t value;

		power = type - MP_U8;
		value = number(walk, (size_t)1 << power);
		if (value > INT64_MAX)
			wrong(walk, SLUICE_E_PROTOCOL,
			      "a number is larger than a signed 64-bit one");
		if (value < unsigned_min[power])
			wrong(walk, SLUICE_E_PROTOCOL, "a number is not in its shortest form");
		return (int64_t)value;
	}
	if (type >= MP_I8 && type <= MP_I64) {
		uint64_t bits;
		int64_t value;

		power = type - MP_I8;
		bits = number(walk, (size_t)1 << power);
		value = (int64_t)(bits << (64 - (8u << power))) >> (64 - (8u << power));
		if (value > signed_max[power])
			wrong(walk, SLUICE_E_PROTOCOL,
			      "a number is not in its shortest form, or not a negative one");
		return value;
	}
	wrong(walk, SLUICE_E_PROTOCOL, "an envelope has another type where a number is expected");
	return 0;
}

static uint64_t map_count(struct walk *walk)
{
	uint8_t type = (uint8_t)number(walk, 1);

	if ((type & 0xf0) == 0x80)
		return type & 0x0f;
	if (type == MP_MAP16) {
		uint64_t count = number(walk, 2);

		if (count < 16)
			wrong(walk, SLUICE_E_PROTOCOL,
			      "the header count is not in its shortest form");
		return count;
	}
	wrong(walk, SLUICE_E_PROTOCOL,
	      "an envelope has another type where the map of headers is expected");
	return 0;
}

static struct sluice_slice headers(struct walk *walk)
{
	const uint8_t *from = walk->at;
	uint64_t count = map_count(walk);

	if (walk->why == NULL && count == 0)
		wrong(walk, SLUICE_E_PROTOCOL, "an empty map of headers must be omitted or nil");
	for (uint64_t i = 0; i < count && walk->why == NULL; i++) {
		if (string(walk).len == 0 && walk->why == NULL)
			wrong(walk, SLUICE_E_PROTOCOL, "a header has an empty name");
		(void)string(walk);
		if ((size_t)(walk->at - from) > LIMIT_EVENT_HEADERS_BYTES_MAX)
			wrong(walk, SLUICE_E_LIMIT,
			      "headers are larger than EVENT_HEADERS_BYTES_MAX");
	}
	return (struct sluice_slice){from, (size_t)(walk->at - from)};
}

static struct sluice_slice optional(struct walk *walk, bool is_string, uint64_t max,
				    const char *why)
{
	struct sluice_slice value;

	if (nil(walk))
		return (struct sluice_slice){NULL, 0};
	value = is_string ? string(walk) : binary(walk);
	if (value.len == 0)
		wrong(walk, SLUICE_E_PROTOCOL,
		      "an empty key, id or subject must be omitted or nil");
	if (value.len > max)
		wrong(walk, SLUICE_E_LIMIT, why);
	return value;
}

static void fields(struct walk *walk, size_t count, struct envelope *ret)
{
	ret->time_delta_ms = integer(walk);
	ret->body = binary(walk);
	if (ret->body.len > LIMIT_EVENT_BODY_BYTES_MAX)
		wrong(walk, SLUICE_E_LIMIT, "a body is larger than EVENT_BODY_BYTES_MAX");
	if (count > 2)
		ret->key = optional(walk, false, LIMIT_EVENT_KEY_BYTES_MAX,
				    "a key is longer than EVENT_KEY_BYTES_MAX");
	if (count > 3)
		ret->id = optional(walk, false, LIMIT_EVENT_ID_BYTES_MAX,
				   "an id is longer than EVENT_ID_BYTES_MAX");
	if (count > 4 && !nil(walk))
		ret->headers = headers(walk);
	if (count > 5)
		ret->subject = optional(walk, true, LIMIT_SUBJECT_BYTES_MAX,
					"a subject is longer than SUBJECT_BYTES_MAX");
	if (count > 6) {
		int64_t priority = integer(walk);

		if (priority < 1 || priority > 255)
			wrong(walk, SLUICE_E_PROTOCOL, "a priority is not 1 to 255 (0 is omitted)");
		ret->priority = (uint8_t)priority;
	}
	/* Trailing defaults are left out: the last field that is there must say something. */
	if (walk->why == NULL && count > 2 && walk->at[-1] == MP_NIL &&
	    ((count == 3 && ret->key.len == 0) || (count == 4 && ret->id.len == 0) ||
	     (count == 5 && ret->headers.len == 0) || (count == 6 && ret->subject.len == 0)))
		wrong(walk, SLUICE_E_PROTOCOL,
		      "an envelope ends with nil; trailing defaults must be omitted");
}

size_t envelope_plain(struct sluice_slice rest, struct sluice_slice *ret_body)
{
	const uint8_t *at = rest.data;
	size_t head, len;

	if (rest.len < 5 || at[0] != (0x90 | FIELDS_MIN) || at[1] >= 0x80)
		return 0;
	if (at[2] == MP_BIN8) {
		head = 4;
		len = at[3];
	} else if (at[2] == MP_BIN16) {
		head = 5;
		len = (size_t)at[3] << 8 | at[4];
		if (len < 1u << 8)
			return 0;
	} else {
		return 0;
	}
	if (rest.len - head < len)
		return 0;
	*ret_body = (struct sluice_slice){at + head, len};
	return head + len;
}

int envelope_next(struct sluice_slice *io_rest, struct envelope *ret, const char **ret_why)
{
	/* Never NULL: adding 0 to NULL is undefined. */
	const uint8_t *from = io_rest->data != NULL ? io_rest->data : (const void *)"";
	struct walk walk = {from, from + io_rest->len, NULL, 0};
	size_t plain;
	uint8_t type;

	*ret = (struct envelope){0};
	plain = envelope_plain(*io_rest, &ret->body);
	if (plain > 0) {
		ret->time_delta_ms = from[1];
		ret->encoded = (struct sluice_slice){from, plain};
		*io_rest = (struct sluice_slice){from + plain, io_rest->len - plain};
		return 0;
	}
	type = (uint8_t)number(&walk, 1);
	if (walk.why == NULL &&
	    ((type & 0xf0) != 0x90 || (type & 0x0f) < FIELDS_MIN || (type & 0x0f) > FIELDS_MAX))
		wrong(&walk, SLUICE_E_PROTOCOL, "an envelope is not an array of 2 to 7 elements");
	if (walk.why == NULL)
		fields(&walk, type & 0x0f, ret);
	if (walk.why != NULL) {
		*ret_why = walk.why;
		return walk.code;
	}
	ret->encoded = (struct sluice_slice){from, (size_t)(walk.at - from)};
	*io_rest = (struct sluice_slice){walk.at, (size_t)(walk.end - walk.at)};
	return 0;
}

int envelope_header_next(struct sluice_slice encoded, size_t *io_pos, struct sluice_slice *ret_name,
			 struct sluice_slice *ret_value)
{
	struct walk walk = {encoded.data, NULL, NULL, 0};

	if (encoded.len == 0)
		return 0;
	walk.end = walk.at + encoded.len;
	if (*io_pos == 0)
		(void)map_count(&walk);
	else
		walk.at += *io_pos;
	if (walk.why == NULL && walk.at == walk.end)
		return 0;
	*ret_name = string(&walk);
	*ret_value = string(&walk);
	if (walk.why != NULL)
		return walk.code;
	*io_pos = (size_t)(walk.at - (const uint8_t *)encoded.data);
	return 1;
}

/* ---- packing ---- */

static uint8_t *put_integer(uint8_t *at, int64_t value)
{
	if (value >= 0) {
		uint64_t u = (uint64_t)value;

		if (u < 0x80)
			return write_be(at, u, 1);
		if (u < 0x100)
			return write_be(write_be(at, MP_U8, 1), u, 1);
		if (u < 0x10000)
			return write_be(write_be(at, MP_U16, 1), u, 2);
		if (u < 0x100000000)
			return write_be(write_be(at, MP_U32, 1), u, 4);
		return write_be(write_be(at, MP_U64, 1), u, 8);
	}
	if (value >= -32)
		return write_be(at, (uint64_t)value & 0xff, 1);
	if (value >= INT8_MIN)
		return write_be(write_be(at, MP_I8, 1), (uint64_t)value, 1);
	if (value >= INT16_MIN)
		return write_be(write_be(at, MP_I16, 1), (uint64_t)value, 2);
	if (value >= INT32_MIN)
		return write_be(write_be(at, MP_I32, 1), (uint64_t)value, 4);
	return write_be(write_be(at, MP_I64, 1), (uint64_t)value, 8);
}

static uint8_t *put_binary(uint8_t *at, struct sluice_slice bytes)
{
	if (bytes.len < 1u << 8)
		at = write_be(write_be(at, MP_BIN8, 1), bytes.len, 1);
	else if (bytes.len < 1u << 16)
		at = write_be(write_be(at, MP_BIN16, 1), bytes.len, 2);
	else
		at = write_be(write_be(at, MP_BIN32, 1), bytes.len, 4);
	return write_slice(at, bytes);
}

static uint8_t *put_string(uint8_t *at, struct sluice_slice bytes)
{
	if (bytes.len < 32)
		at = write_be(at, 0xa0 | bytes.len, 1);
	else if (bytes.len < 1u << 8)
		at = write_be(write_be(at, MP_STR8, 1), bytes.len, 1);
	else if (bytes.len < 1u << 16)
		at = write_be(write_be(at, MP_STR16, 1), bytes.len, 2);
	else
		at = write_be(write_be(at, MP_STR32, 1), bytes.len, 4);
	return write_slice(at, bytes);
}

size_t envelope_size_max(const struct envelope *envelope)
{
	return 1 + 9 + 5 + envelope->body.len + 5 + envelope->key.len + 5 + envelope->id.len + 1 +
	       envelope->headers.len + 5 + envelope->subject.len + 2;
}

size_t envelope_plain_encode(uint8_t *buf, struct sluice_slice body)
{
	buf[0] = 0x90 | FIELDS_MIN;
	buf[1] = 0;
	return (size_t)(put_binary(buf + 2, body) - buf);
}

size_t envelope_encode(uint8_t *buf, const struct envelope *envelope)
{
	size_t count = envelope->priority != 0	   ? 7
		       : envelope->subject.len > 0 ? 6
		       : envelope->headers.len > 0 ? 5
		       : envelope->id.len > 0	   ? 4
		       : envelope->key.len > 0	   ? 3
						   : 2;
	uint8_t *at = write_be(buf, 0x90 | count, 1);

	at = put_integer(at, envelope->time_delta_ms);
	at = put_binary(at, envelope->body);
	if (count > 2)
		at = envelope->key.len > 0 ? put_binary(at, envelope->key)
					   : write_be(at, MP_NIL, 1);
	if (count > 3)
		at = envelope->id.len > 0 ? put_binary(at, envelope->id) : write_be(at, MP_NIL, 1);
	if (count > 4)
		at = envelope->headers.len > 0 ? write_slice(at, envelope->headers)
					       : write_be(at, MP_NIL, 1);
	if (count > 5)
		at = envelope->subject.len > 0 ? put_string(at, envelope->subject)
					       : write_be(at, MP_NIL, 1);
	if (count > 6)
		at = put_integer(at, envelope->priority);
	return (size_t)(at - buf);
}

static size_t string_size(size_t len)
{
	return len + (len < 32 ? 1 : len < 1u << 8 ? 2 : len < 1u << 16 ? 3 : 5);
}

size_t envelope_headers_encode(uint8_t *buf, const struct sluice_slice *names,
			       const struct sluice_slice *values, size_t n)
{
	uint8_t *at = buf;
	size_t size = n == 0 ? 0 : n < 16 ? 1 : 3;

	for (size_t i = 0; i < n; i++)
		size += string_size(names[i].len) + string_size(values[i].len);
	if (buf == NULL || n == 0)
		return size;
	at = n < 16 ? write_be(at, 0x80 | n, 1) : write_be(write_be(at, MP_MAP16, 1), n, 2);
	for (size_t i = 0; i < n; i++)
		at = put_string(put_string(at, names[i]), values[i]);
	return (size_t)(at - buf);
}

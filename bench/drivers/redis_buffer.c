/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes that grow, and commands written into them as Redis' protocol has them: *COUNT, then $LENGTH
 * and the bytes of each argument.
 */
#include "bench/drivers/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int redis_buffer_reserve(struct redis_buffer *buffer, size_t more)
{
	size_t used = buffer->len - buffer->head;
	size_t size = buffer->size ? buffer->size : 4096;
	char *data;

	if (buffer->size - buffer->len >= more)
		return 0;
	while (size < used + more)
		size *= 2;
	/* Moving the bytes to the front is worth it only when much is free before the head. */
	if (size == buffer->size && buffer->head < size / 2)
		size *= 2;
	if (size == buffer->size) {
		memmove(buffer->data, buffer->data + buffer->head, used);
	} else {
		data = malloc(size);
		if (!data)
			return bench_error("redis: no memory for a buffer of %zu bytes", size);
		if (used > 0)
			memcpy(data, buffer->data + buffer->head, used);
		free(buffer->data);
		buffer->data = data;
		buffer->size = size;
	}
	buffer->head = 0;
	buffer->len = used;
	return 0;
}

int redis_buffer_append(struct redis_buffer *buffer, const void *data, size_t len)
{
	if (redis_buffer_reserve(buffer, len))
		return -1;
	redis_buffer_put(buffer, data, len);
	return 0;
}

int redis_buffer_argument(struct redis_buffer *buffer, const char *data, size_t len)
{
	char head[32];
	size_t at = sizeof(head);
	size_t rest = len;

	if (redis_buffer_reserve(buffer, len + sizeof(head)))
		return -1;
	head[--at] = '\n';
	head[--at] = '\r';
	do {
		head[--at] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest > 0);
	head[--at] = '$';
	redis_buffer_put(buffer, head + at, sizeof(head) - at);
	redis_buffer_put(buffer, data, len);
	redis_buffer_put(buffer, "\r\n", 2);
	return 0;
}

int redis_buffer_command(struct redis_buffer *buffer, unsigned count, const char *const argv[],
			 size_t argc)
{
	char head[16];
	int rc = redis_buffer_append(buffer, head,
				     (size_t)snprintf(head, sizeof(head), "*%u\r\n", count));

	for (size_t i = 0; rc == 0 && i < argc; i++)
		rc = redis_buffer_argument(buffer, argv[i], strlen(argv[i]));
	return rc;
}

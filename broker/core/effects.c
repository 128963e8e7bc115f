/* SPDX-License-Identifier: Apache-2.0
 *
 * Effects: an array of records and an arena for the memory they point to. effects_clear keeps the
 * arena's chunks, so that a reused list allocates nothing. A rewind drops records only: the arena's
 * bytes stay until the next clear.
 */
#include "broker/core/effects.h"

#include <stdlib.h>
#include <string.h>

#include "broker/util/invariant.h"

enum { CHUNK_BYTES_MIN = 16 * 1024, CHUNK_BYTES_MAX = 1024 * 1024, RECORDS_MIN = 64 };
enum { SMALL_CHUNK_BYTES = 512, SMALL_RECORDS = 2 };

struct chunk {
	struct chunk *next;
	size_t bytes; /* of the memory behind this header */
	size_t used;
};

struct effects {
	struct effect *records;
	size_t count;
	size_t capacity;
	size_t chunk_bytes; /* of all chunks */
	size_t records_min, chunk_min;
	struct chunk *first;
	struct chunk *current; /* later chunks are empty */
};

int effects_create(struct effects **ret)
{
	struct effects *effects = calloc(1, sizeof(*effects));

	if (effects == NULL)
		return SLUICE_E_NOMEM;
	effects->records_min = RECORDS_MIN;
	effects->chunk_min = CHUNK_BYTES_MIN;
	*ret = effects;
	return 0;
}

void effects_few(struct effects *effects)
{
	effects->records_min = SMALL_RECORDS;
	effects->chunk_min = SMALL_CHUNK_BYTES;
}

void effects_destroy(struct effects *effects)
{
	if (effects == NULL)
		return;
	for (struct chunk *chunk = effects->first, *next; chunk != NULL; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
	free(effects->records);
	free(effects);
}

void effects_clear(struct effects *effects)
{
	for (struct chunk *chunk = effects->first; chunk != NULL; chunk = chunk->next)
		chunk->used = 0;
	effects->current = effects->first;
	effects->count = 0;
}

size_t effects_count(const struct effects *effects)
{
	return effects->count;
}

const struct effect *effects_at(const struct effects *effects, size_t i)
{
	invariant(i < effects->count, "effect %zu of %zu", i, effects->count);
	return &effects->records[i];
}

int effects_add(struct effects *effects, const struct effect *effect)
{
	if (effects->count == effects->capacity) {
		size_t capacity =
			effects->capacity == 0 ? effects->records_min : effects->capacity * 2;
		struct effect *records = realloc(effects->records, capacity * sizeof(*records));

		if (records == NULL)
			return SLUICE_E_NOMEM;
		effects->records = records;
		effects->capacity = capacity;
	}
	invariant(effect->kind != FX_REPLY || effect->outcome != NULL,
		  "command %u: a reply without an outcome", effect->command);
	effects->records[effects->count++] = *effect;
	return 0;
}

/* Sizes of chunks double, so that a big batch needs few of them and a small one stays small. */
static struct chunk *chunk_new(struct effects *effects, size_t bytes)
{
	size_t want = effects->current == NULL ? effects->chunk_min : effects->current->bytes * 2;
	struct chunk *chunk;

	if (want > CHUNK_BYTES_MAX)
		want = CHUNK_BYTES_MAX;
	if (want < bytes)
		want = bytes;
	chunk = malloc(sizeof(*chunk) + want);
	if (chunk == NULL)
		return NULL;
	*chunk = (struct chunk){.bytes = want};
	effects->chunk_bytes += sizeof(*chunk) + want;
	if (effects->current == NULL) {
		chunk->next = effects->first;
		effects->first = chunk;
	} else {
		chunk->next = effects->current->next;
		effects->current->next = chunk;
	}
	return chunk;
}

void *effects_alloc(struct effects *effects, size_t bytes)
{
	size_t rounded = (bytes + 7) & ~(size_t)7;
	struct chunk *chunk = effects->current;
	void *memory;

	if (rounded < bytes)
		return NULL;
	invariant(chunk == NULL || chunk->used % 8 == 0, "an arena of %zu bytes is not aligned",
		  chunk->used);
	while (chunk != NULL && chunk->bytes - chunk->used < rounded)
		chunk = chunk->next;
	if (chunk == NULL)
		chunk = chunk_new(effects, rounded);
	if (chunk == NULL)
		return NULL;
	effects->current = chunk;
	memory = (uint8_t *)(chunk + 1) + chunk->used;
	chunk->used += rounded;
	invariant(chunk->used <= chunk->bytes, "%zu bytes used of a chunk of %zu", chunk->used,
		  chunk->bytes);
	return memory;
}

size_t effects_bytes(const struct effects *effects)
{
	return sizeof(*effects) + effects->capacity * sizeof(*effects->records) +
	       effects->chunk_bytes;
}

/* With a NUL behind it. NULL: out of memory. */
static const void *copied(struct effects *effects, const void *bytes, size_t len)
{
	uint8_t *copy = effects_alloc(effects, len + 1);

	if (copy == NULL)
		return NULL;
	if (len > 0)
		memcpy(copy, bytes, len);
	copy[len] = 0;
	return copy;
}

int effects_copy(struct effects *effects, const struct effect *other)
{
	struct effect own = *other;

	if (own.runs != NULL)
		own.runs = copied(effects, own.runs, own.run_count * sizeof(*own.runs));
	if (own.payload.data != NULL)
		own.payload.data = copied(effects, own.payload.data, own.payload.len);
	if (own.name.data != NULL)
		own.name.data = copied(effects, own.name.data, own.name.len);
	if (own.outcome != NULL)
		own.outcome = copied(effects, own.outcome, sizeof(*own.outcome));
	if ((own.runs == NULL) != (other->runs == NULL) ||
	    (own.payload.data == NULL) != (other->payload.data == NULL) ||
	    (own.name.data == NULL) != (other->name.data == NULL) ||
	    (own.outcome == NULL) != (other->outcome == NULL))
		return SLUICE_E_NOMEM;
	return effects_add(effects, &own);
}

size_t effects_mark(const struct effects *effects)
{
	return effects->count;
}

void effects_rewind(struct effects *effects, size_t mark)
{
	invariant(mark <= effects->count, "a rewind to %zu of %zu effects", mark, effects->count);
	effects->count = mark;
}

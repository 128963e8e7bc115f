/* SPDX-License-Identifier: Apache-2.0
 *
 * Journals of every level of the rules, as a version of that level has written them: the same
 * commands give the same database for ever, on both stores. A red test here means that a command
 * does something else than it did: that is a new level (CONTRIBUTING.md), and the rules of the
 * older one stay. Never write a journal of an older level again.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "tests/unit/core_world.h"

enum { PACKED_MAX = 1 << 20, UNPACKED_MAX = 32 << 20, COMMAND_MAX = 1 << 20 };

struct player {
	enum world_store kind;
	char dir[64];
	struct store *store;
	struct store_txn
		*txn; /* on lmdb of a whole world, as a follower does it; mem: of a batch */
	struct core *core;
	struct effects *effects;
	struct batch_clock clock;
	int level;	 /* of the journal */
	unsigned number; /* of the world in its file, for people */
	uint8_t bytes[COMMAND_MAX];
};

static void player_begin(struct player *player)
{
	struct store_options options = {.map_bytes = 64u << 20, .create = true};

	player->number++;
	strcpy(player->dir, "/tmp/sluice-journal-XXXXXX");
	if (player->kind == WORLD_MEM) {
		cr_assert_eq(store_open_mem(&options, &player->store), 0);
	} else {
		cr_assert_not_null(mkdtemp(player->dir));
		cr_assert_eq(store_open_lmdb(player->dir, &options, &player->store, NULL), 0);
	}
	cr_assert_eq(core_create(&player->core), 0);
	cr_assert_eq(effects_create(&player->effects), 0);
}

static void player_end(struct player *player, const char *digest)
{
	uint32_t expected = (uint32_t)strtoul(digest, NULL, 16);

	if (player->txn != NULL)
		cr_assert_eq(store_commit(player->txn), 0);
	player->txn = NULL;
	cr_assert_eq(world_digest(player->store), expected,
		     "world %u: the commands of this level give another database than they did",
		     player->number);
	effects_destroy(player->effects);
	core_destroy(player->core);
	if (player->kind == WORLD_LMDB)
		store_discard(player->store);
	else
		store_close(player->store);
	player->store = NULL;
}

/* The journal of level 1 has a LEVEL_RAISE to a level that its version did not know. Core refused
 * it then, and the refusal took an index; today the engine refuses it before the batch. Another
 * command that is refused stands for it, on every version. */
static const struct command *played(const struct player *player, const struct command *command)
{
	static Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;
	static const struct command refused = {.type = COMMAND_SESSION_CLOSE,
					       .gateway = 1,
					       .message = &close.base};
	const Sluice__LevelRaise *raise = (const Sluice__LevelRaise *)command->message;

	return command->type == COMMAND_LEVEL_RAISE && raise->level > (uint32_t)player->level
		       ? &refused
		       : command;
}

static void player_apply(struct player *player, const char *hex)
{
	struct command *command = NULL;
	const char *why = "";
	size_t len = strlen(hex) / 2;

	cr_assert_leq(len, sizeof(player->bytes));
	for (size_t i = 0; i < len; i++) {
		unsigned byte = 0;

		cr_assert_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
		player->bytes[i] = (uint8_t)byte;
	}
	cr_assert_eq(command_decode((struct sluice_slice){player->bytes, len}, &command, &why), 0,
		     "world %u: %s", player->number, why);
	effects_clear(player->effects);
	if (player->txn == NULL)
		cr_assert_eq(store_begin(player->store, &player->txn), 0);
	cr_assert_eq(core_batch_begin(player->core, player->txn, player->clock), 0);
	cr_assert_eq(core_apply(player->core, player->txn, played(player, command),
				player->effects),
		     0);
	cr_assert_eq(core_batch_end(player->core, player->txn, player->effects), 0);
	if (player->kind == WORLD_MEM) {
		cr_assert_eq(store_commit(player->txn), 0);
		player->txn = NULL;
	}
	command_free(command);
}

static void player_line(struct player *player, const char *line)
{
	unsigned long long mono, wall;

	if (strcmp(line, "begin") == 0)
		player_begin(player);
	else if (sscanf(line, "batch %llu %llu", &mono, &wall) == 2)
		player->clock = (struct batch_clock){mono, wall};
	else if (strncmp(line, "digest ", 7) == 0)
		player_end(player, line + 7);
	else
		player_apply(player, line);
}

static char *journal_load(int level)
{
	static char packed[PACKED_MAX];
	char path[512], *text = malloc(UNPACKED_MAX);
	size_t len;
	FILE *file;

	cr_assert_not_null(text);
	snprintf(path, sizeof(path), JOURNAL_DATA "/journal-%d.zst", level);
	file = fopen(path, "rb");
	cr_assert_not_null(file, "%s: each level has one", path);
	len = fread(packed, 1, sizeof(packed), file);
	(void)fclose(file);
	len = ZSTD_decompress(text, UNPACKED_MAX - 1, packed, len);
	cr_assert(!ZSTD_isError(len));
	text[len] = 0;
	return text;
}

static void play(enum world_store kind)
{
	static struct player player;

	player.kind = kind;
	for (int level = 1; level <= CORE_LEVEL; level++) {
		char *text = journal_load(level), *rest = text, *line;

		player.level = level;
		player.number = 0;
		while ((line = strtok_r(rest, "\n", &rest)) != NULL)
			player_line(&player, line);
		cr_assert_gt(player.number, 0u);
		cr_assert_null(player.store, "a journal ends with a digest");
		free(text);
	}
}

Test(core_journal, each_level_gives_the_database_that_it_gave)
{
	play(WORLD_MEM);
}

Test(core_journal, and_on_the_other_store)
{
	play(WORLD_LMDB);
}

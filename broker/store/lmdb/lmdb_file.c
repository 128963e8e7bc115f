/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks data.mdb before LMDB maps it. LMDB trusts its two meta pages, its free list and the roots
 * of its trees, which have no checksum: with a file that is shorter than they say the process ends
 * with SIGBUS, and with a root of an older commit LMDB serves that commit and overwrites the pages
 * of newer ones. So this file reads them with pread and compares them with each other:
 *
 *   the meta pages are complete, and of consecutive commits;
 *   the free list ends with the pages that the newest commit freed, as LMDB's always does;
 *   no root (main tree, free list, tables) is on a free page, as the root of an older commit is,
 *   or is another table's;
 *   pages missing at the end of the file are free: LMDB does not write a page that was allocated
 *   and freed in one commit.
 *
 * Costs the main tree (a page or two) and the free list. Knows the layout of LMDB's file, not its
 * interface. Writes nothing.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/store/lmdb/lmdb_file.h"
#include "broker/store/store_impl.h"

enum {
	META_PAGES = 2,
	PAGE_BYTES_MIN = 512,
	PAGE_BYTES_MAX = 65536,
	DEPTH_MAX = 32,
	WATCHED_MAX = 256,
	IDS_AT_ONCE = 4096
};
enum { PAGE_BRANCH = 0x01, PAGE_LEAF = 0x02, PAGE_OVERFLOW = 0x04, PAGE_META = 0x08 };
enum { NODE_BIG = 0x01, NODE_TREE = 0x02 };
/* The flags of a tree that set its order and its duplicates. */
enum { TREE_KIND = 0x7f, TREE_NUMBER_KEYS = 0x08 };

static const uint32_t meta_magic = 0xbeefc0de, meta_version = 1;
static const uint64_t no_page = UINT64_MAX;

/* As on disk, in the byte order of the processor. */
struct page_head {
	uint64_t number;
	uint16_t pad, flags, lower, upper;
};
struct tree {
	uint32_t pad;
	uint16_t flags, depth;
	uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};
struct meta {
	uint32_t magic, version;
	uint64_t address, map_bytes;
	struct tree free, main;
	uint64_t last_page, commit;
};
struct node {
	uint16_t word[2]; /* low and high half of a branch's child or a leaf's value */
	uint16_t flags, key_bytes;
};
static_assert(sizeof(struct page_head) == 16 && sizeof(struct tree) == 48 &&
		      sizeof(struct meta) == 136 && sizeof(struct node) == 8,
	      "the file's layout");

struct file {
	int fd;
	uint64_t bytes, page_bytes, whole_pages;
	struct meta newest;
	uint64_t watched[WATCHED_MAX]; /* pages that must not be free */
	size_t watched_count;
	uint64_t last_freeing; /* the last commit in the free list */
	uint64_t missing_free; /* free pages that the file lacks */
	/* ---- a walk through one table ---- */
	const char *table;
	struct tree tree; /* root no_page: missing or empty */
	uint64_t records;
	uint8_t last_key[STORE_KEY_BYTES_MAX];
	size_t last_key_bytes;
};

#define DAMAGED(...) store_fail(SLUICE_E_CORRUPT, "the database file: " __VA_ARGS__)

static int read_at(const struct file *file, void *bytes, size_t count, uint64_t offset)
{
	ssize_t got = pread(file->fd, bytes, count, (off_t)offset);

	if (got < 0)
		return store_fail(SLUICE_E_IO, "reading data.mdb at byte %" PRIu64 ": %s", offset,
				  strerror(errno));
	if ((size_t)got != count)
		return DAMAGED("data.mdb ends at byte %" PRIu64 "; expected %zu bytes at %" PRIu64,
			       file->bytes, count, offset);
	return 0;
}

/* ---- meta pages ---- */

static int meta_check(const struct file *file, int i, const struct page_head *head,
		      const struct meta *meta)
{
	if (meta->magic != meta_magic)
		return DAMAGED("meta page %d has magic number %#" PRIx32 "; expected %#" PRIx32, i,
			       meta->magic, meta_magic);
	if (meta->version != meta_version)
		return DAMAGED("meta page %d has version %" PRIu32 "; expected %" PRIu32, i,
			       meta->version, meta_version);
	if (head->number != (uint64_t)i || head->flags != PAGE_META)
		return DAMAGED("meta page %d says that it is page %" PRIu64
			       " of kind %#x; expected page %d of kind %#x",
			       i, head->number, head->flags, i, PAGE_META);
	if (meta->free.pad != file->page_bytes)
		return DAMAGED("meta page %d says pages of %" PRIu32
			       " bytes and meta page 0 of %" PRIu64,
			       i, meta->free.pad, file->page_bytes);
	if ((meta->commit & 1) != (uint64_t)i && meta->commit != 0)
		return DAMAGED("meta page %d is of commit %" PRIu64 ", which is the other page's",
			       i, meta->commit);
	if (meta->last_page < META_PAGES - 1 || meta->last_page > UINT64_MAX / PAGE_BYTES_MAX - 1)
		return DAMAGED("meta page %d says that the last page is %" PRIu64, i,
			       meta->last_page);
	return 0;
}

/* Only of the newest commit: after a failed write of the other meta page LMDB leaves the old
 * numbers with the new roots in it, and no reader follows those. */
static int roots_check(const struct meta *meta)
{
	for (int k = 0; k < 2; k++) {
		const struct tree *tree = k == 0 ? &meta->free : &meta->main;
		bool empty = tree->root == no_page;

		if ((!empty && (tree->root < META_PAGES || tree->root > meta->last_page)) ||
		    empty != (tree->depth == 0) || tree->depth > DEPTH_MAX ||
		    (tree->flags & TREE_KIND) != (k == 0 ? TREE_NUMBER_KEYS : 0))
			return DAMAGED("the newest meta page says that the %s begins at page "
				       "%" PRIu64 " of %" PRIu64 ", is %u deep and of kind %#x",
				       k == 0 ? "free list" : "main tree", tree->root,
				       meta->last_page + 1, tree->depth, tree->flags);
	}
	return 0;
}

static int metas_read(struct file *file)
{
	struct page_head heads[META_PAGES];
	struct meta metas[META_PAGES];
	int newer;
	int rc = read_at(file, &metas[0], sizeof(metas[0]), sizeof(heads[0]));

	if (rc != 0)
		return rc;
	if (metas[0].magic != meta_magic)
		return DAMAGED("meta page 0 has magic number %#" PRIx32 "; expected %#" PRIx32,
			       metas[0].magic, meta_magic);
	file->page_bytes = metas[0].free.pad;
	if (file->page_bytes < PAGE_BYTES_MIN || file->page_bytes > PAGE_BYTES_MAX ||
	    (file->page_bytes & (file->page_bytes - 1)) != 0)
		return DAMAGED("meta page 0 says pages of %" PRIu64 " bytes", file->page_bytes);
	if (file->bytes < META_PAGES * file->page_bytes)
		return DAMAGED("data.mdb has %" PRIu64
			       " bytes; expected at least %d pages of %" PRIu64,
			       file->bytes, META_PAGES, file->page_bytes);
	file->whole_pages = file->bytes / file->page_bytes;
	for (int i = 0; i < META_PAGES; i++) {
		uint64_t at = (uint64_t)i * file->page_bytes;

		rc = read_at(file, &heads[i], sizeof(heads[i]), at);
		if (rc == 0)
			rc = read_at(file, &metas[i], sizeof(metas[i]), at + sizeof(heads[i]));
		if (rc == 0)
			rc = meta_check(file, i, &heads[i], &metas[i]);
		if (rc != 0)
			return rc;
	}
	newer = metas[1].commit > metas[0].commit;
	if (metas[newer].commit != metas[!newer].commit + 1 ||
	    metas[newer].last_page < metas[!newer].last_page)
		return DAMAGED("the meta pages are of commits %" PRIu64 " and %" PRIu64
			       ", of %" PRIu64 " and %" PRIu64
			       " pages; expected consecutive commits and no fewer pages in the "
			       "newer",
			       metas[0].commit, metas[1].commit, metas[0].last_page + 1,
			       metas[1].last_page + 1);
	file->newest = metas[newer];
	return roots_check(&file->newest);
}

/* ---- trees ---- */

struct leaf_value {
	const uint8_t *key;
	size_t key_bytes;
	const uint8_t *inside; /* NULL: the value has pages of its own */
	uint64_t bytes;
	uint64_t page; /* first of them */
	bool tree;
};
typedef int (*visit_fn)(struct file *file, const struct leaf_value *value);

static int page_read(const struct file *file, uint64_t number, void *bytes, size_t count)
{
	const struct page_head *head = bytes;
	int rc;

	if (number < META_PAGES || number > file->newest.last_page)
		return DAMAGED("a tree leads to page %" PRIu64 "; expected 2 to %" PRIu64, number,
			       file->newest.last_page);
	if (number >= file->whole_pages)
		return DAMAGED("data.mdb has %" PRIu64 " bytes, and page %" PRIu64 " of %" PRIu64
			       " bytes, which is in use, is beyond its end; its newest meta page "
			       "says %" PRIu64 " pages",
			       file->bytes, number, file->page_bytes, file->newest.last_page + 1);
	rc = read_at(file, bytes, count, number * file->page_bytes);
	if (rc == 0 && head->number != number)
		return DAMAGED("page %" PRIu64 " says that it is page %" PRIu64, number,
			       head->number);
	return rc;
}

static int leaf_node(struct file *file, const uint8_t *page, size_t at, uint64_t number,
		     visit_fn visit)
{
	struct node node;
	struct leaf_value value = {0};
	size_t inside;

	memcpy(&node, page + at, sizeof(node));
	value.key = page + at + sizeof(node);
	value.key_bytes = node.key_bytes;
	value.bytes = node.word[0] | (uint64_t)node.word[1] << 16;
	value.tree = (node.flags & NODE_TREE) != 0;
	/* For example a value that is itself a list: no table of this store has one, and LMDB
	 * crashes on it. */
	if ((node.flags & ~(NODE_BIG | NODE_TREE)) != 0)
		return DAMAGED("a record of page %" PRIu64 " is of kind %#x", number, node.flags);
	inside = (node.flags & NODE_BIG) != 0 ? sizeof(value.page) : value.bytes;
	if (sizeof(node) + node.key_bytes + inside > file->page_bytes - at)
		return DAMAGED("a record of page %" PRIu64 " goes beyond it", number);
	if ((node.flags & NODE_BIG) != 0)
		memcpy(&value.page, value.key + node.key_bytes, sizeof(value.page));
	else
		value.inside = value.key + node.key_bytes;
	return visit(file, &value);
}

/* Depth first, in key order. `depth` levels are left, which bounds the recursion. */
static int tree_walk(struct file *file, uint64_t number, unsigned depth, visit_fn visit)
{
	uint8_t *page = malloc(file->page_bytes);
	struct page_head head;
	int rc = page == NULL ? SLUICE_E_NOMEM : page_read(file, number, page, file->page_bytes);

	if (rc == 0) {
		memcpy(&head, page, sizeof(head));
		if (head.flags != (depth == 1 ? PAGE_LEAF : PAGE_BRANCH) ||
		    head.lower < sizeof(head) || head.lower > head.upper ||
		    head.upper > file->page_bytes)
			rc = DAMAGED("page %" PRIu64
				     " is of kind %#x with its room from %u to %u; expected a %s",
				     number, head.flags, head.lower, head.upper,
				     depth == 1 ? "leaf" : "branch");
	}
	for (size_t i = sizeof(head); rc == 0 && i + 2 <= head.lower; i += 2) {
		struct node node;
		uint16_t at;

		memcpy(&at, page + i, sizeof(at));
		if (at < head.upper || at + sizeof(node) > file->page_bytes) {
			rc = DAMAGED("a record of page %" PRIu64 " is at byte %u", number, at);
		} else if (depth == 1) {
			rc = leaf_node(file, page, at, number, visit);
		} else {
			memcpy(&node, page + at, sizeof(node));
			rc = tree_walk(file,
				       node.word[0] | (uint64_t)node.word[1] << 16 |
					       (uint64_t)node.flags << 32,
				       depth - 1, visit);
		}
	}
	free(page);
	return rc;
}

static int watch(struct file *file, uint64_t page)
{
	if (file->watched_count == WATCHED_MAX)
		return DAMAGED("the main tree has more than %d tables", WATCHED_MAX - 2);
	for (size_t i = 0; i < file->watched_count; i++)
		if (file->watched[i] == page)
			return DAMAGED("two trees begin at page %" PRIu64, page);
	file->watched[file->watched_count++] = page;
	return 0;
}

/* The main tree: by table name, the table's tree. Its recorded size distinguishes its root from
 * another page of the same kind. */
static int check_table(struct file *file, const struct leaf_value *value)
{
	struct page_head head;
	struct tree tree;
	uint64_t count;
	int rc;

	if (!value->tree || value->inside == NULL || value->bytes != sizeof(tree))
		return DAMAGED("a record of the main tree is no table");
	memcpy(&tree, value->inside, sizeof(tree));
	if (tree.root == no_page && tree.depth == 0 && tree.entries == 0)
		return 0;
	rc = page_read(file, tree.root, &head, sizeof(head));
	if (rc != 0)
		return rc;
	count = head.lower < sizeof(head) ? 0 : (head.lower - sizeof(head)) / sizeof(uint16_t);
	if (tree.depth == 0 || tree.depth > DEPTH_MAX || (tree.flags & TREE_KIND) != 0 ||
	    head.flags != (tree.depth == 1 ? PAGE_LEAF : PAGE_BRANCH) ||
	    (tree.depth == 1 && tree.entries != count) ||
	    (tree.depth == 2 && tree.leaf_pages != count))
		return DAMAGED("table %.*s is said to begin at page %" PRIu64 " with %" PRIu64
			       " records in %" PRIu64
			       " leaves, %u deep; that page is of kind %#x and has %" PRIu64
			       " entries",
			       (int)value->key_bytes, (const char *)value->key, tree.root,
			       tree.entries, tree.leaf_pages, tree.depth, head.flags, count);
	return watch(file, tree.root);
}

static int see_free_pages(struct file *file, const uint64_t *ids, size_t count, uint64_t *io_above)
{
	for (size_t i = 0; i < count; i++) {
		if (ids[i] < META_PAGES || ids[i] > file->newest.last_page || ids[i] >= *io_above)
			return DAMAGED("the free list has page %" PRIu64 " behind page %" PRIu64
				       "; expected falling numbers from %" PRIu64 " to 2",
				       ids[i], *io_above, file->newest.last_page);
		*io_above = ids[i];
		if (ids[i] >= file->whole_pages)
			file->missing_free++;
		for (size_t k = 0; k < file->watched_count; k++)
			if (file->watched[k] == ids[i])
				return DAMAGED("page %" PRIu64
					       " begins a tree and is in the free list",
					       ids[i]);
	}
	return 0;
}

/* The free list: by commit, how many pages it freed and their numbers. */
static int check_freed(struct file *file, const struct leaf_value *value)
{
	uint64_t ids[IDS_AT_ONCE], commit, count, above = no_page, at;
	struct page_head head;
	int rc = 0;

	if (value->key_bytes != sizeof(commit) || value->tree || value->bytes < sizeof(count))
		return DAMAGED("a record of the free list has a key of %zu and a value of %" PRIu64
			       " bytes",
			       value->key_bytes, value->bytes);
	memcpy(&commit, value->key, sizeof(commit));
	if (commit <= file->last_freeing || commit > file->newest.commit)
		return DAMAGED("the free list has commit %" PRIu64 " behind %" PRIu64
			       "; the newest is %" PRIu64,
			       commit, file->last_freeing, file->newest.commit);
	file->last_freeing = commit;
	at = value->page * file->page_bytes + sizeof(head);
	if (value->inside == NULL) {
		rc = page_read(file, value->page, &head, sizeof(head));
		if (rc == 0)
			rc = head.flags != PAGE_OVERFLOW
				     ? DAMAGED("page %" PRIu64
					       " is of kind %#x; expected a part of the free list",
					       value->page, head.flags)
				     : read_at(file, &count, sizeof(count), at);
	} else {
		memcpy(&count, value->inside, sizeof(count));
	}
	if (rc == 0 && count > value->bytes / sizeof(*ids) - 1)
		return DAMAGED("the free list says %" PRIu64 " pages in %" PRIu64 " bytes", count,
			       value->bytes);
	for (uint64_t done = 0; rc == 0 && done < count;) {
		size_t some = count - done < IDS_AT_ONCE ? (size_t)(count - done) : IDS_AT_ONCE;

		if (value->inside != NULL)
			memcpy(ids, value->inside + (1 + done) * sizeof(*ids), some * sizeof(*ids));
		else
			rc = read_at(file, ids, some * sizeof(*ids),
				     at + (1 + done) * sizeof(*ids));
		if (rc == 0)
			rc = see_free_pages(file, ids, some, &above);
		done += some;
	}
	return rc;
}

static int trees_check(struct file *file)
{
	const struct meta *meta = &file->newest;
	int rc = 0;

	if (meta->main.root != no_page)
		rc = watch(file, meta->main.root);
	if (rc == 0 && meta->free.root != no_page)
		rc = watch(file, meta->free.root);
	if (rc == 0 && meta->main.root != no_page)
		rc = tree_walk(file, meta->main.root, meta->main.depth, check_table);
	if (rc == 0 && meta->free.root != no_page)
		rc = tree_walk(file, meta->free.root, meta->free.depth, check_freed);
	if (rc != 0)
		return rc;
	/* The first commit has nothing to free; every other one frees the root that it replaced. */
	if (meta->commit > 1 && file->last_freeing != meta->commit)
		return DAMAGED("the free list ends with commit %" PRIu64
			       "; the newest meta page is of commit %" PRIu64,
			       file->last_freeing, meta->commit);
	if (file->whole_pages <= meta->last_page &&
	    meta->last_page + 1 - file->whole_pages != file->missing_free)
		return DAMAGED("data.mdb has %" PRIu64 " bytes; its newest meta page says %" PRIu64
			       " pages of %" PRIu64 " bytes, and %" PRIu64
			       " of those beyond its end are in use",
			       file->bytes, meta->last_page + 1, file->page_bytes,
			       meta->last_page + 1 - file->whole_pages - file->missing_free);
	return 0;
}

/* The main tree again, for the one table. */
static int find_table(struct file *file, const struct leaf_value *value)
{
	if (value->key_bytes == strlen(file->table) &&
	    memcmp(value->key, file->table, value->key_bytes) == 0 && value->inside != NULL &&
	    value->bytes == sizeof(file->tree))
		memcpy(&file->tree, value->inside, sizeof(file->tree));
	return 0;
}

/* A table's tree: ascending keys, and values in their places. */
static int check_record(struct file *file, const struct leaf_value *value)
{
	size_t common =
		value->key_bytes < file->last_key_bytes ? value->key_bytes : file->last_key_bytes;
	struct page_head head;
	uint64_t pages;
	int order, rc;

	if (value->key_bytes == 0 || value->key_bytes > STORE_KEY_BYTES_MAX || value->tree)
		return DAMAGED("a record has a key of %zu bytes", value->key_bytes);
	order = memcmp(value->key, file->last_key, common);
	if (order < 0 || (order == 0 && value->key_bytes <= file->last_key_bytes))
		return DAMAGED("record %" PRIu64 " does not come behind the one before it",
			       file->records + 1);
	memcpy(file->last_key, value->key, value->key_bytes);
	file->last_key_bytes = value->key_bytes;
	file->records++;
	if (value->inside != NULL)
		return 0;
	rc = page_read(file, value->page, &head, sizeof(head));
	if (rc != 0)
		return rc;
	pages = head.lower | (uint64_t)head.upper << 16;
	if (head.flags != PAGE_OVERFLOW || pages > file->whole_pages - value->page ||
	    value->bytes + sizeof(head) > pages * file->page_bytes)
		return DAMAGED("a value of %" PRIu64 " bytes is on page %" PRIu64
			       " of kind %#x, the first of %" PRIu64,
			       value->bytes, value->page, head.flags, pages);
	return 0;
}

static int table_check(struct file *file)
{
	int rc = tree_walk(file, file->newest.main.root, file->newest.main.depth, find_table);

	if (rc != 0 || file->tree.root == no_page)
		return rc;
	rc = tree_walk(file, file->tree.root, file->tree.depth, check_record);
	if (rc == 0 && file->records != file->tree.entries)
		rc = DAMAGED("%" PRIu64 " records were found; expected %" PRIu64, file->records,
			     file->tree.entries);
	return rc;
}

static int file_open(struct file *file, const char *path)
{
	struct stat st;

	file->fd = -1;
	/* Checked before: opening a pipe would wait for its writer. */
	if (stat(path, &st) != 0)
		return store_fail(SLUICE_E_IO, "data.mdb: %s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return store_fail(SLUICE_E_IO, "data.mdb is a %s; expected a regular file",
				  S_ISDIR(st.st_mode) ? "directory" : "special file");
	file->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (file->fd < 0)
		return store_fail(SLUICE_E_IO, "data.mdb: %s", strerror(errno));
	file->bytes = (uint64_t)st.st_size;
	return metas_read(file);
}

static void file_close(const struct file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd);
}

int lmdb_file_check(const char *path)
{
	struct file file = {0};
	int rc = file_open(&file, path);

	if (rc == 0)
		rc = trees_check(&file);
	file_close(&file);
	return rc;
}

int lmdb_file_check_table(const char *path, const char *table)
{
	struct file file = {.table = table, .tree = {.root = UINT64_MAX}};
	int rc = file_open(&file, path);

	if (rc == 0 && file.newest.main.root != no_page)
		rc = table_check(&file);
	file_close(&file);
	return rc;
}

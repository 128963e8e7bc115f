/* SPDX-License-Identifier: Apache-2.0
 * One picture per scenario: a bar for each system's median, a thin line for its range. */
#include <errno.h>
#include <string.h>

#include "dirs.h"
#include "harness.h"

enum { WIDTH = 760, BAR = 26, LEFT = 150, RIGHT = 120, TOP = 64 };

static const char *colour(const struct row *row)
{
	static const char *const colours[] = {"#1f6feb", "#9aa4b2", "#d97706"};

	return colours[row->system->driver->kind];
}

static void bar(FILE *out, const struct row *row, double scale, unsigned y)
{
	double median = row_median(row), low, high;
	char text[32];

	(void)fprintf(out, "<text x='%d' y='%u' text-anchor='end'>%s</text>\n", LEFT - 8, y + 17,
		      row->system->name);
	if (row->count == 0) {
		(void)fprintf(out, "<text x='%d' y='%u'>failed</text>\n", LEFT, y + 17);
		return;
	}
	row_range(row, &low, &high);
	(void)fprintf(out,
		      "<rect x='%d' y='%u' width='%.1f' height='%d' fill='%s'/>\n"
		      "<path d='M%.1f %u H%.1f' stroke='#111' stroke-width='1.5'/>\n"
		      "<text x='%.1f' y='%u'>%s</text>\n",
		      LEFT, y + 3, median * scale, BAR - 8, colour(row), LEFT + low * scale, y + 12,
		      LEFT + high * scale, LEFT + high * scale + 6, y + 17,
		      amount_format(text, sizeof(text), median));
}

static int picture(const char *dir, const struct results *results, unsigned first, unsigned last)
{
	const struct row *head = results->rows[first];
	unsigned height = TOP + (last - first) * BAR + 16;
	char path[BENCH_PATH_MAX * 2];
	double max = 0, low, high;
	FILE *out;

	(void)snprintf(path, sizeof(path), "%s/%s.svg", dir, head->scenario);
	out = fopen(path, "we");
	if (out == NULL)
		return bench_error("%s: %s", path, strerror(errno));
	for (unsigned i = first; i < last; i++) {
		row_range(results->rows[i], &low, &high);
		max = high > max ? high : max; /* not for NaN: a row that failed */
	}
	(void)fprintf(out,
		      "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%u' "
		      "font-family='sans-serif' font-size='13'>\n"
		      "<rect width='100%%' height='100%%' fill='#fff'/>\n"
		      "<text x='16' y='24' font-size='16' font-weight='bold'>%s (%s%s)</text>\n"
		      "<text x='16' y='44' fill='#555'>%s</text>\n",
		      WIDTH, height, head->scenario, head->of->unit,
		      head->of->lower ? ", less is better" : "", head->of->what);
	for (unsigned i = first; i < last; i++)
		bar(out, results->rows[i], max > 0 ? (WIDTH - LEFT - RIGHT) / max : 0,
		    TOP + (i - first) * BAR);
	(void)fprintf(out, "</svg>\n");
	return fclose(out) == 0 ? 0 : bench_error("%s: %s", path, strerror(errno));
}

int report_svg(const char *dir, const struct results *results)
{
	int rc = dir_make(dir);

	for (unsigned i = 0, end; i < results->count && rc == 0; i = end) {
		for (end = i + 1; end < results->count && strcmp(results->rows[end]->scenario,
								 results->rows[i]->scenario) == 0;)
			end++;
		rc = picture(dir, results, i, end);
	}
	return rc;
}

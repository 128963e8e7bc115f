#include "tests/sim/plants.h"
#include <string.h>
#include <stddef.h>
int plants_find(const char *name) { return strcmp(name, "none") == 0 ? 0 : -1; }
const char *plants_name(int plant) { return plant == 0 ? "none" : NULL; }
const char *plants_text(int plant) { return ""; }
void plants_set(int plant) {}
void plants_kill_comes(bool comes) {}

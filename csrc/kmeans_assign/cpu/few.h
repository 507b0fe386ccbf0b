// kmeans_assign for few centres: every centre is scored for every row, and no row is coded.
//
// With so few, what the screen does for each row (its code, lengths, limits) takes longer than the
// scores themselves. A row whose two best float32 scores differ by more than their error has its
// label; the others compare all centres. The answer is the same.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

namespace ktfast::cpu {

// Whether kmeans_few may stand in for the screen here, and is faster.
bool has_few_centers(const KmeansAssignParams& p);

// `p.workspace` is aligned; everything else is as for kmeans_assign, which checks it. Returns how
// many centres were compared exactly, besides the nearest.
int64_t kmeans_few(const KmeansAssignParams& p);

}  // namespace ktfast::cpu

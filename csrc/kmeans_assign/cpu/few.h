// kmeans_assign for few centres: computes a float32 score of every centre for every row.
//
// With few centres the screen's work per row (code, lengths, limits) takes longer than the scores
// themselves. If a row's two least scores differ by more than their error, the least score decides.
// Other rows are compared with all centres exactly. The labels and distances are the same.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

namespace ktfast::cpu {

// Whether kmeans_few can do this assignment and is faster than the screen.
bool has_few_centers(const KmeansAssignParams& p);

// Assigns the rows. kmeans_assign has checked the parameters and aligned `p.workspace`. Returns how
// many centres the undecided rows were compared with, added up.
int64_t kmeans_few(const KmeansAssignParams& p);

}  // namespace ktfast::cpu

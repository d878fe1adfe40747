/* Where columns are in panels of rows (fs_panels of kernels.h). */
#ifndef FASTSOFTMAX_PANELS_H
#define FASTSOFTMAX_PANELS_H

#include "kernels.h"

/* The place of column j in rows of panels, each panel_width wide. */
static inline ptrdiff_t place_of(const fs_panels *panels, ptrdiff_t panel_width, ptrdiff_t j) {
    const ptrdiff_t first = (panels->n_panels - 1) * panel_width;
    return j < first ? panel_width + j : j - first;
}

#endif

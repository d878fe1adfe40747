/* (Read by dense.h, once for each x_t.) Rows of a block for a Hessian: their logits, class by
 * class, and their coordinates in panels. 0 < n_rows <= MAX_BLOCK_ROWS. The rows after the block,
 * which are read next, are fetched meanwhile. */

static void panel_rows(void *z_, void *logits, const fs_rows *rows, const void *weights,
                       const void *bias, const fs_panels *panels, ptrdiff_t logits_stride,
                       fs_block block) {
    enum { LINE_ELEMENTS = 64 / (int)sizeof(x_t) };
    const fs_block none = {NULL, 0, 0, NULL};
    const ptrdiff_t n = block.n_rows, n_places = panels->n_panels * PANEL_WIDTH;
    const ptrdiff_t first = panels->n_columns - last_columns(panels);
    const ptrdiff_t n_loaded = rows->n_features - first;
    const ptrdiff_t ahead = block.row_index || block.packed ? 0 : n * rows->x_stride;
    const real *center = panels->places, *scale = center + n_places;
    real *z = z_;
    if (logits) block_logits(logits, rows, weights, bias, logits_stride, block, none);
    for (ptrdiff_t i = 0; i < n; ++i, z += PANEL_WIDTH) {
        const x_t *x = x_row(rows, block, i);
        for (ptrdiff_t at = 0; at < PANEL_WIDTH; at += VEC_WIDTH) {
            const ptrdiff_t n_lanes = min_size(VEC_WIDTH, n_loaded - at);
            const vec x_i = n_lanes > 0 ? x_load_tail(x + first + at, n_lanes) : v_set1(0);
            v_store(z + at, v_mul(v_sub(x_i, v_load(center + at)), v_load(scale + at)));
        }
        for (ptrdiff_t j = 0; j < first; j += VEC_WIDTH) {
            const ptrdiff_t at = PANEL_WIDTH + j;
            if (ahead && j % LINE_ELEMENTS == 0) v_prefetch(x + j + ahead);
            v_store(z + panel_place(at, n),
                    v_mul(v_sub(x_load(x + j), v_load(center + at)), v_load(scale + at)));
        }
    }
}

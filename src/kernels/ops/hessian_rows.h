/* Sums over rows of s (diag(p) - p p^T) (x) z z^T. For a pair of logits that is a product of two
 * matrices, z times a factor for each row and z, of which a triangle is computed: register tiles of
 * up to HESSIAN_ROWS places a by HESSIAN_VECS vectors of places b stay where they are while the
 * rows of a block go by. */

/* As many sums as the registers hold beside a row of vectors and a factor. */
enum { HESSIAN_ROWS = GRAD_CLASSES >= 12 ? 8 : 4, HESSIAN_VECS = 3 };

/* Places of a panel: whole vectors and whole tiles. The first panel holds the columns that are left
 * over, because there each of them costs a row of the triangle, at the end it would cost a column
 * of vectors (26 columns in vectors of 8: 56 products for 74). */
enum { PANEL_WIDTH = VEC_WIDTH > 8 ? VEC_WIDTH : 8 };

/* Columns that are in the first panel. */
FORCE_INLINE ptrdiff_t last_columns(const fs_panels *panels) {
    return panels->n_columns - (panels->n_panels - 1) * PANEL_WIDTH;
}

/* Where a place of the first row is, in panels of n_rows rows. */
FORCE_INLINE ptrdiff_t panel_place(ptrdiff_t place, ptrdiff_t n_rows) {
    return place / PANEL_WIDTH * (n_rows + 1) * PANEL_WIDTH + place % PANEL_WIDTH;
}

/* Where column j is in panels. The 1 for the intercept is 0 - -1, and 0 * 0 stands where no column
 * is. */
static void place_columns(void *places, const fs_coordinates *coordinates, ptrdiff_t n_features) {
    const ptrdiff_t n_columns = n_features + (coordinates->with_bias != 0);
    const fs_panels panels = {NULL, n_columns, even_parts(n_columns, PANEL_WIDTH)};
    const ptrdiff_t n_places = panels.n_panels * PANEL_WIDTH;
    const ptrdiff_t first = n_columns - last_columns(&panels);
    real *center = places, *scale = center + n_places;
    memset(places, 0, (size_t)(2 * n_places) * sizeof(real));
    for (ptrdiff_t j = 0; j < n_columns; ++j) {
        const ptrdiff_t at = j < first ? PANEL_WIDTH + j : j - first;
        const int is_bias = j == n_features;
        center[at] = is_bias ? -1 : (real)coordinates->center[j];
        scale[at] = is_bias || !coordinates->scale ? 1 : (real)coordinates->scale[j];
    }
}

/* One vector of rows. */
FORCE_INLINE void lane_probabilities(real *probs, real *rest, ptrdiff_t stride, ptrdiff_t n_classes,
                                     ptrdiff_t n_logits) {
    const vec zero = v_set1(0), one = v_set1(1);
    vec max = v_load(probs), largest = zero, others = zero;
    for (ptrdiff_t k = 1; k < n_classes; ++k) {
        const vec o = v_load(probs + k * stride);
        largest = v_select(v_lt(max, o), v_set1((real)k), largest);
        max = v_select(v_lt(max, o), o, max);
    }
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        const vec e = v_exp_sum(v_sub(v_load(probs + k * stride), max), zero);
        others = v_add(others, v_select(v_eq(largest, v_set1((real)k)), zero, e));
        v_store(probs + k * stride, e);
    }
    /* max - max makes the row NaN where max is infinite */
    others = v_add(others, v_sub(max, max));
    const vec share = v_div(one, v_add(one, others));
    others = v_mul(others, share);
    for (ptrdiff_t k = 0; k < n_logits; ++k) {
        const vec p = v_mul(v_load(probs + k * stride), share);
        const mask is_largest = v_eq(largest, v_set1((real)k));
        v_store(probs + k * stride, p);
        v_store(rest + k * stride, v_select(is_largest, others, v_sub(one, p)));
    }
}

static void class_probabilities(void *probs, void *rest, ptrdiff_t stride, ptrdiff_t n_rows,
                                ptrdiff_t n_classes, ptrdiff_t n_logits) {
    for (ptrdiff_t i = 0; i < n_rows; i += VEC_WIDTH)
        lane_probabilities((real *)probs + i, (real *)rest + i, stride, n_classes, n_logits);
}

FORCE_INLINE void add_to_doubles(double *sums, vec a) {
#if REAL_IS_DOUBLE
    v_store(sums, v_add(v_load(sums), a));
#else
    real lanes[VEC_WIDTH];
    v_store(lanes, a);
    for (int l = 0; l < VEC_WIDTH; ++l) sums[l] += (double)lanes[l];
#endif
}

/* For a < n_tile, v < n_vecs, both constants where this is inlined: sums[a * stride + v * VEC_WIDTH
 * ..] += sum_i shares[i, a] z[v][i, ..]. */
FORCE_INLINE void hessian_tile(double *sums, const real *shares, const real *const z[HESSIAN_VECS],
                               ptrdiff_t n_rows, ptrdiff_t stride, int n_tile, int n_vecs) {
    vec acc[HESSIAN_ROWS][HESSIAN_VECS];
    UNROLL
    for (int a = 0; a < n_tile; ++a) {
        UNROLL
        for (int v = 0; v < n_vecs; ++v) acc[a][v] = v_set1(0);
    }
    for (ptrdiff_t i = 0; i < n_rows * PANEL_WIDTH; i += PANEL_WIDTH) {
        vec z_i[HESSIAN_VECS];
        UNROLL
        for (int v = 0; v < n_vecs; ++v) z_i[v] = v_load(z[v] + i);
        UNROLL
        for (int a = 0; a < n_tile; ++a) {
            const vec share = v_set1(shares[i + a]);
            UNROLL
            for (int v = 0; v < n_vecs; ++v) acc[a][v] = v_fma(share, z_i[v], acc[a][v]);
        }
    }
    UNROLL
    for (int a = 0; a < n_tile; ++a) {
        UNROLL
        for (int v = 0; v < n_vecs; ++v)
            add_to_doubles(sums + a * stride + v * VEC_WIDTH, acc[a][v]);
    }
}

#define HESSIAN_CASE(n)                                          \
    case n:                                                      \
        if (n_vecs == 3)                                         \
            hessian_tile(sums, shares, z, n_rows, stride, n, 3); \
        else if (n_vecs == 2)                                    \
            hessian_tile(sums, shares, z, n_rows, stride, n, 2); \
        else                                                     \
            hessian_tile(sums, shares, z, n_rows, stride, n, 1); \
        break;

static void hessian_tile_of(double *sums, const real *shares, const real *const z[HESSIAN_VECS],
                            ptrdiff_t n_rows, ptrdiff_t stride, ptrdiff_t n_tile,
                            ptrdiff_t n_vecs) {
    switch (n_tile) {
        HESSIAN_CASE(1)
        HESSIAN_CASE(2)
        HESSIAN_CASE(3)
        HESSIAN_CASE(4)
#if GRAD_CLASSES >= 12
        HESSIAN_CASE(5)
        HESSIAN_CASE(6)
        HESSIAN_CASE(7)
        HESSIAN_CASE(8)
#endif
        default: break;
    }
}

/* sums[a, b] += sum_i shares[i, a] z[i, b] for places a <= b, and perhaps for others. */
static void add_triangle(double *sums, const real *shares, const real *z,
                         const fs_curved_rows *rows) {
    const ptrdiff_t n = rows->n_rows;
    const fs_panels panels = {NULL, rows->n_columns, even_parts(rows->n_columns, PANEL_WIDTH)};
    const ptrdiff_t n_places = panels.n_panels * PANEL_WIDTH, n_last = last_columns(&panels);
    const ptrdiff_t n_vecs = n_places / VEC_WIDTH, n_cuts = even_parts(n_vecs, HESSIAN_VECS);
    for (ptrdiff_t cut = 0; cut < n_cuts; ++cut) {
        const ptrdiff_t v0 = even_part(n_vecs, n_cuts, cut);
        const ptrdiff_t v1 = even_part(n_vecs, n_cuts, cut + 1);
        for (ptrdiff_t a = 0; a < v1 * VEC_WIDTH;) {
            const ptrdiff_t end = a < PANEL_WIDTH ? n_last : n_places;
            const ptrdiff_t n_tile = min_size(HESSIAN_ROWS, end - a);
            const ptrdiff_t v = a / VEC_WIDTH > v0 ? a / VEC_WIDTH : v0;
            const real *vectors[HESSIAN_VECS];
            for (ptrdiff_t c = 0; c < HESSIAN_VECS; ++c)
                vectors[c] = z + panel_place(min_size(v + c, v1 - 1) * VEC_WIDTH, n);
            hessian_tile_of(sums + a * n_places + v * VEC_WIDTH, shares + panel_place(a, n),
                            vectors, n, n_places, n_tile, v1 - v);
            a = a + n_tile < end || a >= PANEL_WIDTH ? a + n_tile : PANEL_WIDTH;
        }
    }
}

/* factor[i] = row_weight_i h_i for the pair (k, l). */
FORCE_INLINE void pair_factors(real *factor, const fs_curved_rows *rows, ptrdiff_t k, ptrdiff_t l) {
    const real *p = (const real *)rows->probs + k * rows->stride;
    const real *q = (const real *)(k == l ? rows->rest : rows->probs) + l * rows->stride;
    const vec sign = v_set1(k == l ? 1 : -1);
    for (ptrdiff_t i = 0; i < rows->n_rows; i += VEC_WIDTH) {
        const vec s = v_load_tail((const real *)rows->row_weights + i,
                                  min_size(VEC_WIDTH, rows->n_rows - i), 0);
        v_store(factor + i, v_mul(v_mul(sign, s), v_mul(v_load(p + i), v_load(q + i))));
    }
}

static void add_hessian_rows(double *sums, void *shares_, const fs_curved_rows *rows) {
    const ptrdiff_t n_panels = even_parts(rows->n_columns, PANEL_WIDTH), n = rows->n_rows;
    const ptrdiff_t n_places = n_panels * PANEL_WIDTH;
    const real *z = rows->z;
    real *shares = shares_, factor[MAX_BLOCK_ROWS];
    for (ptrdiff_t k = 0; k < rows->n_logits; ++k)
        for (ptrdiff_t l = k; l < rows->n_logits; ++l, sums += n_places * n_places) {
            if (k == l && rows->n_logits > 1) continue;
            pair_factors(factor, rows, k, l);
            for (ptrdiff_t panel = 0; panel < n_panels; ++panel)
                for (ptrdiff_t i = 0; i < n; ++i) {
                    const ptrdiff_t row = (panel * (n + 1) + i) * PANEL_WIDTH;
                    for (ptrdiff_t at = row; at < row + PANEL_WIDTH; at += VEC_WIDTH)
                        v_store(shares + at, v_mul(v_set1(factor[i]), v_load(z + at)));
                }
            add_triangle(sums, shares, z, rows);
        }
}

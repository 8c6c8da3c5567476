/* sort_methods.h - sorting a line of ELEM, included once per element type with S(name) defined. LESS(a, b) compares what two
 * pointers point at, no two elements are equal, and BYTE(e, b) is byte b of the BYTES of a key, from the lowest.
 *
 * What returns a pointer says where the result is: in v or in tmp, both of n elements. */

static ELEM *S(merge)(ELEM *v, ELEM *tmp, int64_t n)
{
    for (int64_t begin = 0; begin < n; begin += RUN) {
        int64_t end = begin + RUN < n ? begin + RUN : n;
        for (int64_t i = begin + 1; i < end; i++) {
            ELEM e = v[i];
            int64_t j = i;
            for (; j > begin && LESS(&e, &v[j - 1]); j--) v[j] = v[j - 1];
            v[j] = e;
        }
    }
    for (int64_t width = RUN; width < n; width *= 2) {
        for (int64_t begin = 0; begin < n; begin += 2 * width) {
            int64_t middle = begin + width < n ? begin + width : n, end = middle + width < n ? middle + width : n;
            int64_t a = begin, b = middle;
            for (int64_t k = begin; k < end; k++) {
                bool first = b == end || (a < middle && LESS(&v[a], &v[b]));
                tmp[k] = first ? v[a] : v[b];
                a += first;
                b += !first;
            }
        }
        ELEM *t = v;
        v = tmp;
        tmp = t;
    }
    return v;
}

static ELEM *S(radix)(ELEM *v, ELEM *tmp, int64_t n)
{
    int64_t count[BYTES][256] = {{0}};
    for (int64_t i = 0; i < n; i++)
        for (int b = 0; b < BYTES; b++) count[b][BYTE(v[i], b)]++;
    for (int b = 0; b < BYTES; b++) {
        int64_t *c = count[b], sum = 0;
        if (c[BYTE(v[0], b)] == n) continue; /* the same byte everywhere */
        for (int k = 0; k < 256; k++) {
            int64_t here = c[k];
            c[k] = sum;
            sum += here;
        }
        for (int64_t i = 0; i < n; i++) tmp[c[BYTE(v[i], b)]++] = v[i];
        ELEM *t = v;
        v = tmp;
        tmp = t;
    }
    return v;
}

static ELEM *S(sort)(ELEM *v, ELEM *tmp, int64_t n)
{
    return n < RADIX_MIN ? S(merge)(v, tmp, n) : S(radix)(v, tmp, n);
}

/* Lets the element at i of a heap of k (the greatest on top) sink to its place. */
static void S(sink)(ELEM *heap, int64_t i, int64_t k)
{
    ELEM e = heap[i];
    for (int64_t child; (child = 2 * i + 1) < k; i = child) {
        if (child + 1 < k && LESS(&heap[child], &heap[child + 1])) child++;
        if (!LESS(&e, &heap[child])) break;
        heap[i] = heap[child];
    }
    heap[i] = e;
}

/* The k least of v, sorted. */
static ELEM *S(least)(ELEM *v, ELEM *tmp, int64_t n, int64_t k)
{
    if (k > n / 16 && k > 16) return S(sort)(v, tmp, n);
    for (int64_t i = k / 2 - 1; i >= 0; i--) S(sink)(v, i, k);
    for (int64_t i = k; i < n && k; i++) {
        if (!LESS(&v[i], &v[0])) continue;
        v[0] = v[i];
        S(sink)(v, 0, k);
    }
    return S(merge)(v, tmp, k);
}

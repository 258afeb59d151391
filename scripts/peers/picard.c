/* A peer for benchmarks: the `euler` scheme and Picard's iteration in C, a game at a time, vectorised over the inventories.
 *
 *     cc -O3 -march=native -ffast-math -shared -fPIC -o libpicard.so picard.c -lm
 *
 * The same recurrences as tests/oracle.py: quotes and fills at the end of each interval, backward; the same fills, forward.
 */
#include <math.h>
#include <stdlib.h>

enum { RELATIVE, ELASTIC, MARKET_SHARE };

typedef struct {
    double A, k, k0, n_makers, eta, gamma, quote_min, quote_max;
} Game;

static double clip(double quote, const Game *g) { return fmin(fmax(quote, g->quote_min), g->quote_max); }

/* The u > 0 with u + ln u = c, by two steps of Fritsch, Shafer and Crowley. */
static double wright_omega(double c) {
    double exponential = exp(fmin(c, 1.0)), large = fmax(c, 1.0);
    double u = c > 1.0 ? large - log(large) : exponential / (1.0 + exponential);
    for (int i = 0; i < 2; i++) {
        double r = c - u - log(u), q = 2.0 * (1.0 + u) * (1.0 + u + 2.0 / 3.0 * r);
        u *= 1.0 + r / (1.0 + u) * (q - r) / (q - 2.0 * r);
    }
    return u;
}

/* Best quotes and fill rates of one side. `sign` times the rise of the value across an edge is what a fill adds. */
static void reply_at(int coupling, const Game *g, int edges, double sign, const double *restrict rise, double crowd,
                     double *restrict quote, double *restrict rate) {
    double rivals = log(g->n_makers - 1.0), base = g->A * exp(-g->k0 * crowd);
    if (coupling == MARKET_SHARE) {
        for (int e = 0; e < edges; e++) {
            double gain = sign * rise[e];
            quote[e] = clip((1.0 + wright_omega(g->k * (gain + crowd) - 1.0 - rivals)) / g->k - gain, g);
            rate[e] = base / (1.0 + exp(g->k * (quote[e] - crowd) + rivals));
        }
        return;
    }
    double scale = coupling == RELATIVE ? g->A : base;
    for (int e = 0; e < edges; e++) {
        quote[e] = clip(1.0 / g->k - sign * rise[e], g);
        rate[e] = scale * exp(-g->k * (quote[e] - crowd));
    }
}

typedef struct {
    double *restrict quotes, *restrict fills, *restrict value, *restrict rise, *restrict density, *restrict crowd, *restrict reply;
} Work;

static void backward(int coupling, const Game *g, int x_max, int n_steps, double dt, Work w) {
    int n_x = 2 * x_max + 1, edges = 2 * x_max;
    for (int x = 0; x < n_x; x++) w.value[x] = -g->gamma * (x - x_max) * (x - x_max);
    for (int j = n_steps; j >= 0; j--) {
        double *ask = w.quotes + (size_t)j * 2 * edges, *bid = ask + edges;
        double *ask_fills = w.fills + (size_t)j * 2 * edges, *bid_fills = ask_fills + edges;
        for (int e = 0; e < edges; e++) w.rise[e] = w.value[e + 1] - w.value[e];
        reply_at(coupling, g, edges, -1.0, w.rise, w.crowd[2 * j], ask, ask_fills);
        reply_at(coupling, g, edges, 1.0, w.rise, w.crowd[2 * j + 1], bid, bid_fills);
        if (j == 0) return;
        for (int x = 0; x < n_x; x++) w.value[x] -= dt * g->eta * (x - x_max) * (x - x_max);
        for (int e = 0; e < edges; e++) w.value[e + 1] += dt * ask_fills[e] * (ask[e] - w.rise[e]);
        for (int e = 0; e < edges; e++) w.value[e] += dt * bid_fills[e] * (bid[e] + w.rise[e]);
    }
}

static void forward(int x_max, int n_steps, double dt, const double *initial, Work w) {
    int n_x = 2 * x_max + 1, edges = 2 * x_max;
    for (int x = 0; x < n_x; x++) w.density[x] = initial[x];
    for (int j = 0;; j++) {
        const double *ask = w.quotes + (size_t)j * 2 * edges, *bid = ask + edges;
        double asks = 0.0, bids = 0.0, askers = 0.0, bidders = 0.0;
        for (int e = 0; e < edges; e++) {
            asks += w.density[e + 1] * ask[e];
            bids += w.density[e] * bid[e];
            askers += w.density[e + 1];
            bidders += w.density[e];
        }
        w.reply[2 * j] = asks / askers;
        w.reply[2 * j + 1] = bids / bidders;
        if (j == n_steps) return;
        /* the fills of an interval are those at its end */
        const double *ask_fills = w.fills + (size_t)(j + 1) * 2 * edges, *bid_fills = ask_fills + edges;
        double *upwards = w.rise;
        for (int e = 0; e < edges; e++) upwards[e] = dt * (bid_fills[e] * w.density[e] - ask_fills[e] * w.density[e + 1]);
        for (int e = 0; e < edges; e++) w.density[e + 1] += upwards[e];
        for (int e = 0; e < edges; e++) w.density[e] -= upwards[e];
    }
}

/* Solves games first … last − 1; crowds is [game][time][side], initial [game][x]. Returns the sweeps of all of them together. */
long solve(int coupling, int x_max, int n_steps, double horizon, double tolerance, int max_sweeps, long first, long last,
           const Game *games, const double *initial, double *crowds) {
    int n_x = 2 * x_max + 1, edges = 2 * x_max;
    size_t per_edge = (size_t)(n_steps + 1) * 2 * edges, path = 2 * (size_t)(n_steps + 1);
    Work w = {malloc(8 * per_edge), malloc(8 * per_edge), malloc(8 * n_x), malloc(8 * n_x), malloc(8 * n_x), NULL, malloc(8 * path)};
    long sweeps = 0;
    for (long i = first; i < last; i++) {
        w.crowd = crowds + i * path;
        for (size_t j = 0; j < path; j++) w.crowd[j] = clip(1.0 / games[i].k, &games[i]);
        for (int sweep = 0; sweep < max_sweeps; sweep++, sweeps++) {
            backward(coupling, &games[i], x_max, n_steps, horizon / n_steps, w);
            forward(x_max, n_steps, horizon / n_steps, initial + i * n_x, w);
            double change = 0.0;
            for (size_t j = 0; j < path; j++) {
                change = fmax(change, fabs(w.reply[j] - w.crowd[j]));
                w.crowd[j] = w.reply[j];
            }
            if (change <= tolerance) {
                sweeps++;
                break;
            }
        }
    }
    free(w.quotes), free(w.fills), free(w.value), free(w.rise), free(w.density), free(w.reply);
    return sweeps;
}

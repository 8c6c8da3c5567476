/* adam.c - Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1)
 * p parameter, g its gradient, m and v the running means of g and g^2, vmax the greatest v so far, t the step */
#include <tide/plugin.h>

typedef struct {
    double lr, eps, weight_decay;
    td_nums betas;
    bool amsgrad, maximize;
} options;
static const td_opt opts[] = {
    TD_OPT(options, lr, TD_O_NUM | TD_OPT_LIVE, "1e-3", ">= 0", "learning rate"),
    TD_OPT(options, betas, TD_O_NUMS, "{0.9, 0.999}", ">= 0, < 1", "decay of m and of v"),
    TD_OPT(options, eps, TD_O_NUM, "1e-8", ">= 0", "added to the root"),
    TD_OPT(options, weight_decay, TD_O_NUM | TD_OPT_LIVE, "0", ">= 0", "L2 penalty: g = g + weight_decay p"),
    TD_OPT(options, amsgrad, TD_O_BOOL, "false", NULL, "divide by the greatest v so far (Reddi et al. 2018)"),
    TD_OPT(options, maximize, TD_O_BOOL, "false", NULL, "climb instead"),
};

/* running = beta running + (1 - beta) x */
static void follow(td_tensor *running, td_tensor *x, double beta)
{
    td_mul_into(running, running, td_number(beta));
    td_add_into(running, running, td_mul(x, td_number(1 - beta)));
}

/* 1 - beta^t */
static td_tensor *correction(td_module *self, double beta)
{
    return td_sub(td_number(1), td_pow(td_number(beta), td_scalar(self, "step")));
}

static bool step(td_module *self, td_tensor *p, td_tensor *g, td_tensor *const *state)
{
    const options *o = td_options(self);
    td_tensor *m = state[0], *v = state[1], *vmax = state[2], *lr = td_scalar(self, "lr");
    double beta1 = o->betas.v[0], beta2 = o->betas.v[1];
    if (o->betas.n != 2) return td_fail("Adam: betas: expected two numbers, got %lld", (long long)o->betas.n);
    if (o->maximize) g = td_neg(g);
    /* (1) g = g + weight_decay p */
    g = td_add(g, td_mul(p, td_scalar(self, "weight_decay")));
    /* (2) m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2 */
    follow(m, g, beta1);
    follow(v, td_square(g), beta2);
    if (o->amsgrad) v = td_maximum_into(vmax, vmax, v);
    /* (3) p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) */
    td_tensor *root = td_div(td_sqrt(v), td_sqrt(correction(self, beta2)));
    td_tensor *move = td_div(m, td_add(root, td_number(o->eps)));
    return td_sub_into(p, p, td_mul(move, td_div(lr, correction(self, beta1))));
}

static const td_optim adam = {
    .size = sizeof adam,
    .name = "Adam",
    .doc = "Adam: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; p = p - lr (m / (1 - beta1^t)) / "
           "(sqrt(v / (1 - beta2^t)) + eps), t the step (Kingma & Ba 2015). weight_decay p is added to g first.",
    .opts = TD_OPTS(options, opts),
    .state = "m v vmax?amsgrad",
    .step = step,
    .fused = "adam_step p*& g* m*& v*& vmax*?& step. lr. weight_decay.",
};
static bool reg(void) { return td_add_optim(&adam); }
TD_PLUGIN("adam", "1.0", "MIT", "optim:Adam", reg, NULL)

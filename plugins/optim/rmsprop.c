/* rmsprop.c - RMSprop (Tieleman & Hinton 2012, lecture 6.5), in PyTorch's form
 * p parameter, g its gradient, v the running mean of g^2, avg that of g, buf the velocity */
#include <tide/plugin.h>

typedef struct {
    double lr, alpha, eps, weight_decay, momentum;
    bool centered, maximize;
} options;
static const td_opt opts[] = {
    TD_OPT(options, lr, TD_O_NUM | TD_OPT_LIVE, "1e-2", ">= 0", "learning rate"),
    TD_OPT(options, alpha, TD_O_NUM, "0.99", ">= 0, <= 1", "decay of v"),
    TD_OPT(options, eps, TD_O_NUM, "1e-8", ">= 0", "added to the root"),
    TD_OPT(options, weight_decay, TD_O_NUM | TD_OPT_LIVE, "0", ">= 0", "L2 penalty: g = g + weight_decay p"),
    TD_OPT(options, momentum, TD_O_NUM, "0", ">= 0", "factor of the velocity"),
    TD_OPT(options, centered, TD_O_BOOL, "false", NULL, "subtract the squared mean gradient (Graves 2013)"),
    TD_OPT(options, maximize, TD_O_BOOL, "false", NULL, "climb instead"),
};

/* running = alpha running + (1 - alpha) x */
static void follow(td_tensor *running, td_tensor *x, double alpha)
{
    td_mul_into(running, running, td_number(alpha));
    td_add_into(running, running, td_mul(x, td_number(1 - alpha)));
}

static bool step(td_module *self, td_tensor *p, td_tensor *g, td_tensor *const *state)
{
    const options *o = td_options(self);
    td_tensor *v = state[0], *buf = state[1], *avg = state[2], *lr = td_scalar(self, "lr");
    if (o->maximize) g = td_neg(g);
    /* (1) g = g + weight_decay p */
    g = td_add(g, td_mul(p, td_scalar(self, "weight_decay")));
    /* (2) v = alpha v + (1 - alpha) g^2, less the squared mean of g where centered */
    follow(v, td_square(g), o->alpha);
    if (o->centered) {
        follow(avg, g, o->alpha);
        v = td_sub(v, td_square(avg));
    }
    /* (3) p = p - lr g / (sqrt(v) + eps), with a velocity where there is momentum */
    td_tensor *move = td_div(g, td_add(td_sqrt(v), td_number(o->eps)));
    if (o->momentum > 0) {
        td_mul_into(buf, buf, td_number(o->momentum));
        move = td_add_into(buf, buf, move);
    }
    return td_sub_into(p, p, td_mul(move, lr));
}

static const td_optim rmsprop = {
    .size = sizeof rmsprop,
    .name = "RMSprop",
    .doc = "v = alpha v + (1 - alpha) g^2; p = p - lr g / (sqrt(v) + eps); with momentum buf = momentum buf + g / "
           "(sqrt(v) + eps), p = p - lr buf; centered divides by sqrt(v - mean(g)^2) + eps (Tieleman & Hinton 2012, "
           "in PyTorch's form).",
    .opts = TD_OPTS(options, opts),
    .state = "v buf?momentum avg?centered",
    .step = step,
    .fused = "rmsprop_step p*& g* v*& buf*?& avg*?& step. lr. weight_decay.",
};
static bool reg(void) { return td_add_optim(&rmsprop); }
TD_PLUGIN("rmsprop", "1.0", "MIT", "optim:RMSprop", reg, NULL)

/* sgd.c - stochastic gradient descent with momentum (Sutskever et al. 2013), in PyTorch's form
 * p parameter, g its gradient, buf its velocity */
#include <tide/plugin.h>

typedef struct {
    double lr, momentum, dampening, weight_decay;
    bool nesterov, maximize;
} options;
static const td_opt opts[] = {
    TD_OPT(options, lr, TD_O_NUM | TD_OPT_LIVE, "1e-3", ">= 0", "learning rate"),
    TD_OPT(options, momentum, TD_O_NUM, "0", ">= 0", "factor of the velocity"),
    TD_OPT(options, dampening, TD_O_NUM, "0", NULL, "1 - factor of the gradient in the velocity"),
    TD_OPT(options, weight_decay, TD_O_NUM | TD_OPT_LIVE, "0", ">= 0", "L2 penalty: g = g + weight_decay p"),
    TD_OPT(options, nesterov, TD_O_BOOL, "false", NULL, "look ahead; needs a momentum and no dampening"),
    TD_OPT(options, maximize, TD_O_BOOL, "false", NULL, "climb instead"),
};

static bool step(td_module *self, td_tensor *p, td_tensor *g, td_tensor *const *state)
{
    const options *o = td_options(self);
    td_tensor *buf = state[0];
    if (o->maximize) g = td_neg(g);
    /* (1) g = g + weight_decay p */
    g = td_add(g, td_mul(p, td_scalar(self, "weight_decay")));
    /* (2) buf = momentum buf + (1 - dampening) g;  at the first step buf = g */
    if (o->momentum != 0) {
        td_tensor *mixed = td_add(td_mul(buf, td_number(o->momentum)), td_mul(g, td_number(1 - o->dampening)));
        td_copy_into(buf, td_where(td_le(td_scalar(self, "step"), td_number(1)), g, mixed));
        /* (3) g = g + momentum buf with nesterov, else buf */
        g = o->nesterov ? td_add(g, td_mul(buf, td_number(o->momentum))) : buf;
    }
    /* (4) p = p - lr g */
    return td_sub_into(p, p, td_mul(g, td_scalar(self, "lr")));
}

static const td_optim sgd = {
    .size = sizeof sgd,
    .name = "SGD",
    .doc = "Stochastic gradient descent: g = g + weight_decay p; buf = momentum buf + (1 - dampening) g, at the "
           "first step buf = g; p = p - lr buf, or with nesterov p - lr (g + momentum buf) (Sutskever et al. 2013, "
           "in PyTorch's form).",
    .opts = TD_OPTS(options, opts),
    .state = "buf?momentum",
    .step = step,
    .fused = "sgd_step p*& g* buf*?& step. lr. weight_decay.",
};
static bool reg(void) { return td_add_optim(&sgd); }
TD_PLUGIN("sgd", "1.0", "MIT", "optim:SGD", reg, NULL)

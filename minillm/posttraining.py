r"""Post-training: from completing to answering.

**The question.** A model that was trained to continue texts is given `593214:`. It
continues with whatever is likely there, another problem perhaps, or a line of prose.
How do we make it *answer*, and answer well?

**Before this:** [`minillm.train`][] and [`minillm.generate`][]. That a chat is one text
with marks in it, which the model merely continues, is told in
[`minillm.inference.chat`][].

All experiments are on one bench ([`minillm.labs.posttraining`][]): a model of 100,000
weights, tasks whose answers a program can check ([`minillm.labs.answers`][]), such as
sorting the digits of `593214:`, three seeds each. A score below is the share of right
answers to problems that were in no training data, one number for each seed:

>>> import torch
>>> from minillm.inference.intervals import mean_interval
>>> from minillm.labs.learners import BATCH
>>> from minillm.labs.posttraining import VARIANTS, runs
>>> def scores(name, when="after", k=1):
...     return [round(r[when]["pass"][str(k)], 2) for r in runs(name)]

# 1. Show it what to do

Write down problems with their answers, and train on them as on any text: *supervised
fine-tuning*, SFT. One thing is new. The problem is given, so its tokens need not be
predicted; a mask leaves them out of the loss
([`sft_loss`][minillm.training.imitation.sft_loss]). The token that ends the answer must
*not* be left out: what is not learned is not written. After 150 demonstrations of
sorting, this is the share of answers that end by themselves: first where that token was
learned, then where it was left out.

>>> [round(r["before"]["ended"], 2) for r in runs("policy, sort")]
[0.86, 0.92, 0.93]
>>> [round(r["before"]["ended"], 2) for r in runs("unended")]
[0.01, 0.01, 0.01]

A checker that cuts each answer at the right length would never notice. And what does
the mask bring? As many steps with the loss on the answers, and on all tokens:

>>> for n in (50, 500, 5000):
...     print(n, *(scores(f"{n} demonstrations, {on}") for on in ("answer", "all")))
50 [0.06, 0.07, 0.12] [0.03, 0.03, 0.02]
500 [0.82, 0.73, 0.86] [0.74, 0.71, 0.72]
5000 [0.95, 0.93, 0.97] [0.93, 0.93, 0.94]

The fewer the demonstrations, the more of what is learned from their prompts, which are
digits at random, is learned by heart.

# 2. Let it try

Suppose that these demonstrations are all there is. A third of the answers are right.
But the model can be asked again, and a program can tell which answers are right. For
how many problems is one try right, and for how many at least one of 64 tries? (The
share for $k$ tries is called `pass@k`.)

>>> scores("policy, sort", "before"), scores("policy, sort", "before", k=64)
([0.32, 0.32, 0.44], [0.62, 0.63, 0.69])

So sample, keep what is right, and train on that: *rejection sampling*. In eight rounds,
each of which samples 6,400 answers from the model of the round before:

>>> scores("own, eight rounds")
[0.92, 0.97, 0.96]

All 51,200 samples at once, from the model as it was, do less: the later rounds sample
answers to problems that the model could not solve at first.

>>> scores("own, one round")
[0.89, 0.88, 0.91]

The model has been shown no further answer. (The budget is that of every run below,
unless it says otherwise: 51,200 samples, and as many sequences in training. The number
of optimizer steps into which these are divided is not the same.)

# 3. Follow the reward

Rejection sampling throws wrong answers away, though they say something, too; and a
reward may lie between right and wrong. What do we want? A high mean reward
$J = \sum_y \pi(y)\, R(y)$, where the *policy* $\pi$ is the model's distribution over
answers $y$ to a prompt. Since $\nabla \pi = \pi \nabla \ln \pi$, the gradient of $J$ is
a mean over samples of the model itself:

$$\nabla J = \sum_y \pi(y)\, R(y)\, \nabla \ln \pi(y)$$

Sample, weight the gradient of each sample's log-probability
([`log_probs`][minillm.training.policy.log_probs]) by its reward, take a step:
that is REINFORCE (Williams 1992). In five lines, for a policy of three logits:

>>> random = torch.Generator().manual_seed(0)
>>> reward = torch.tensor([1.0, 0.0, 0.0])  # the first answer is right
>>> logits = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
>>> for _ in range(100):
...     log_p = logits.log_softmax(0)
...     y = torch.multinomial(log_p.detach().exp(), 64, True, generator=random)
...     loss = -(reward[y] * log_p[y]).mean()
...     (gradient,) = torch.autograd.grad(loss, logits)
...     logits = (logits - 0.5 * gradient).detach().requires_grad_()
>>> [round(p, 2) for p in logits.softmax(0).tolist()]
[0.98, 0.01, 0.01]

With rewards of 0 and 1 this *is* rejection sampling with one step a round, up to the
length of that step. Now add a constant to all rewards. The mean of the gradient stays
the same, for $\sum_y \pi \nabla \ln \pi = \sum_y \nabla \pi = \nabla 1 = 0$. Its
variance does not. Over all three answers, each with its probability:

>>> p = torch.tensor([0.3, 0.5, 0.2])
>>> grad_log_p = torch.eye(3) - p  # of each answer, by the three logits
>>> for shift in (0.0, -0.3, -1.0, 1.0):
...     g = (reward + shift)[:, None] * grad_log_p
...     mean = p @ g
...     variance = (p @ (g - mean) ** 2).sum()
...     print(shift, [round(x, 2) for x in mean.tolist()], round(variance.item(), 2))
0.0 [0.21, -0.15, -0.06] 0.16
-0.3 [0.21, -0.15, -0.06] 0.08
-1.0 [0.21, -0.15, -0.06] 0.32
1.0 [0.21, -0.15, -0.06] 1.25

On the bench, a hundred rounds of 512 samples, with rewards of 0 and 1, of −1 and 0, and
of 1 and 2. At any given weights the three have the same expected gradient:

>>> for name in ("0 and 1", "-1 and 0", "1 and 2"):
...     print(name, scores(f"no baseline, {name}"))
0 and 1 [0.59, 0.57, 0.71]
-1 and 0 [0.33, 0.45, 0.48]
1 and 2 [0.28, 0.26, 0.4]

In every seed their order is that of the variances above; between the last two, the
order is all that three seeds show. The first is far above what
the demonstrations gave (0.32, 0.32, 0.44), the last below it. With 0 and 1, wrong
answers weigh nothing. With 1 and 2, every sample is made more likely, right or wrong,
and what should be learned is a small difference between large gradients.

What is subtracted from a reward is called a *baseline*, and with one it no longer
matters whether somebody chose 0 and 1 or 1 and 2. The simplest is the mean reward of
several answers to the *same* prompt. A reward less that mean, divided by the standard
deviation of these rewards, is the *advantage* of an answer in GRPO (Shao et al. 2024,
arXiv:2402.03300), [`group_advantages`][minillm.training.policy.group_advantages]:

>>> scores("policy, sort"), scores("policy, sort, 400 rounds")
([0.61, 0.49, 0.69], [0.93, 0.91, 0.97])

Nor does it matter here whether one divides, or takes the mean of the whole batch in
place of the group's. (Liu et al. 2025 leave the division out, since it gives more
weight to problems that are almost always right or almost always wrong.)

>>> scores("baseline of the group"), scores("baseline of the batch")
([0.55, 0.49, 0.66], [0.59, 0.53, 0.66])

On this task it is no better than 0 and 1 without any baseline. What it buys is that
you need not know which two numbers are the good ones. And it takes four times the
FLOPs to get to where rejection sampling was after eight rounds. That is not a race
between two gradients. Rejection sampling made many more steps of as many sequences, at
another learning rate:

>>> for name in ("own, eight rounds", "policy, sort", "policy, sort, 400 rounds"):
...     c = VARIANTS[name]
...     own = c["method"] == "own"
...     batch = BATCH if own else c["prompts"] * c["samples"]
...     print(c["rounds"] * c["updates"], "steps of", batch, "sequences, lr", c["lr"])
800 steps of 64 sequences, lr 0.001
100 steps of 512 sequences, lr 0.0007
400 steps of 512 sequences, lr 0.0007

With rewards of 0 and 1 the gradient is even the same, as we saw. So between its 0.59,
0.57, 0.71 and the 0.92, 0.97, 0.96 of rejection sampling lie the number of steps, their
learning rate, and that each of its sequences is a right one. Compare methods at the
steps that suit each; simply imitating what is right is the baseline to beat.

**Groups that agree teach nothing.** Where all answers to a prompt are right, or all
wrong, all advantages are zero. The share of such groups over the run:

>>> flat = [[row[5] for row in r["curve"]] for r in runs("policy, sort")]
>>> [round(sum(f) / len(f), 2) for f in flat]
[0.63, 0.65, 0.61]

**The loss is no guide.** Advantages of a group have a sum of zero. So where its answers
are equally long, the loss is zero at the first step on new samples, and with one step a
round that is every step; where they are not, it says which of them are longer. Its
gradient is not zero ([`policy_loss`][minillm.training.policy.policy_loss]). Watch the
reward.

>>> advantages = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))[0]
>>> log_p = torch.tensor([[-1.0], [-2.0], [-0.5], [-1.5]], requires_grad=True)
>>> loss = policy_loss(log_p, log_p.detach(), advantages, log_p < 0)
>>> loss.backward()
>>> round(loss.item(), 6) + 0.0, [round(g, 2) for g in log_p.grad[:, 0].tolist()]
(0.0, [-0.22, 0.22, 0.22, -0.22])

**Entropy falls.** What was rewarded becomes likely, the rest disappears. In nats per
token, before and after:

>>> [(r["before"]["entropy"], r["after"]["entropy"]) for r in runs("policy, sort")]
[(0.214, 0.1104), (0.1964, 0.1028), (0.1535, 0.0735)]

# 4. Use each sample more than once

Sampling takes time, so one would like to take several steps on the samples of a round.
After the first step they are samples of an *older* model (*off-policy*). The
ratio $\rho$ of new to old probability corrects the mean (*importance sampling*), but
the further it is from one, the noisier the estimate. *Clipping* it to 0.8 to 1.2 takes
away the gradient of tokens that have gone far enough (PPO: Schulman et al.
2017, arXiv:1707.06347). This is the gradient for a good sample of one token, whose
probability was 0.2 when it was sampled and has grown since:

>>> for new in (0.2, 0.23, 0.25, 0.5):
...     log_p = torch.tensor([[new]]).log().requires_grad_()
...     old = torch.tensor([[0.2]]).log()
...     policy_loss(log_p, old, torch.ones(1), log_p < 0).backward()
...     print(new, round(log_p.grad.item(), 2))
0.2 -1.0
0.23 -1.15
0.25 0.0
0.5 0.0

On the bench, four steps on each of a hundred rounds of samples, with clipping and
without. The steps are as many as in the 400 rounds of section 3, so training costs the
same; sampling costs a quarter:

>>> scores("four updates"), scores("four updates, no clip")
([0.63, 0.73, 0.83], [0.35, 0.34, 0.34])

What did it gain, seed against seed? Four clipped steps against one, against four
without clipping, and fresh samples for as many steps against the four:

>>> def gain(new, old):
...     pairs = zip(runs(new), runs(old), strict=True)
...     rise = [n["after"]["pass"]["1"] - o["after"]["pass"]["1"] for n, o in pairs]
...     return "{:+.2f} ± {:.2f}".format(*mean_interval(rise))
>>> gain("four updates", "policy, sort")
'+0.13 ± 0.27'
>>> gain("four updates", "four updates, no clip")
'+0.39 ± 0.26'
>>> gain("policy, sort, 400 rounds", "four updates")
'+0.21 ± 0.21'

That clipping saves the run is beyond doubt. Whether the three further steps gained
anything over one is not: each seed ended higher, and zero is within the interval. (So
it is, barely, for fresh samples.) Without clipping the three steps undid what the first
had gained: the model began at 0.32, 0.32 and 0.44, and ends about there, or below. Its
entropy fell nearly as far, so it is confidently wrong:

>>> [r["after"]["entropy"] for r in runs("four updates")]
[0.0493, 0.0457, 0.0286]
>>> [r["after"]["entropy"] for r in runs("four updates, no clip")]
[0.0758, 0.0486, 0.0447]

Sixteen steps on each round's samples are too many even so. Again as many steps and as
much training in all, on a sixteenth of the fresh samples:

>>> scores("sixteen updates"), scores("sixteen updates, no clip")
([0.4, 0.31, 0.36], [0.01, 0.05, 0.18])

# 5. Does it learn anything new?

With 256 tries, does the model solve more than before, or does it merely find at once
what it used to find sometimes? By [`pass_at_k`][minillm.inference.tries.pass_at_k], on
two tasks, before and after four hundred rounds:

<div class="figure" markdown>

--8<-- "images/lab-posttraining-tries.svg"

</div>

>>> for task in ("sort", "split"):
...     run = f"policy, {task}, 400 rounds"
...     for k in (1, 256):
...         print(task, k, scores(run, "before", k), scores(run, "after", k))
sort 1 [0.32, 0.32, 0.44] [0.93, 0.91, 0.97]
sort 256 [0.72, 0.72, 0.78] [0.98, 0.98, 0.99]
split 1 [0.2, 0.17, 0.23] [0.88, 0.8, 0.84]
split 256 [1.0, 1.0, 1.0] [0.91, 0.87, 0.9]

Two tasks, two answers. To *sort* is one rule for all problems, and what is learned
where the model was right sometimes carries over to where it never was. Take the
problems that it solved in none of 256 tries. How many of the 300 are there, and what
share of the tries is right now?

>>> for r in runs("policy, sort, 400 rounds"):
...     never = [after / 256 for before, after in zip(*r["counts"]) if not before]
...     print(len(never), round(sum(never) / len(never), 2))
84 0.89
84 0.84
66 0.94

To *split* is to write a number as a sum of digits, two of which are forbidden. Each
problem has many right answers, and no rule holds for all problems. Training picks some
and forgets the others: one try has become much better, and 256 tries are worse.
Distinct answers among 256, before and after:

>>> for r in runs("policy, split, 400 rounds"):
...     print(*(round(r[when]["distinct"]) for when in ("before", "after")))
205 2
199 3
216 4

In large models, Yue et al. (2025, arXiv:2504.13837) found that training by rewards
raises `pass@1` but lowers `pass@k` for large $k$, and asked whether it ever adds what
the base model could not do. On this bench it depends on the task. But the two differ
in more than the rule: to split has many right answers, to sort one. Two further tasks
take these apart. *Parity*: even digits first, then the odd ones, in any order,
which is a rule with many right answers. *Table*: a table of numbers that must be known
by heart, one right answer and no rule. After two hundred rounds:

>>> for task in ("parity", "table"):
...     for k in (1, 64):
...         run = f"policy, {task}"
...         print(task, k, scores(run, "before", k), scores(run, "after", k))
parity 1 [0.11, 0.14, 0.06] [0.52, 0.52, 0.3]
parity 64 [0.51, 0.53, 0.37] [0.86, 0.81, 0.74]
table 1 [0.1, 0.1, 0.09] [0.11, 0.08, 0.07]
table 64 [0.42, 0.39, 0.42] [0.36, 0.32, 0.29]

So it is the rule: where there is one, problems that were never solved are solved, many
right answers or not. Where there is none, a reward tells the model nothing about the
next problem.

# 6. You get what you reward

Somebody wrote the verifier in haste: an answer is right if its digits are in order. All
right answers pass. The mean reward and the share of right answers, over a hundred
rounds:

<div class="figure" markdown>

--8<-- "images/lab-posttraining-hacked.svg"

</div>

>>> for r in runs("in order"):
...     rounds = {row[0]: row for row in r["curve"]}
...     print([tuple(round(x, 2) for x in rounds[i][1:3]) for i in (1, 20, 100)])
[(0.8, 0.37), (0.98, 0.0), (1.0, 0.0)]
[(0.9, 0.36), (0.97, 0.0), (1.0, 0.0)]
[(0.93, 0.54), (0.98, 0.02), (1.0, 0.0)]
>>> [(problem, after[0]) for problem, _, after in runs("in order")[0]["texts"][:2]]
[('847386:', '4.'), ('962116:', '5.')]

The reward is perfect and the answers are worthless. The curve of the reward cannot show
it; only a number that is *not* trained on does. Two repairs are usual: a penalty for
moving away from the start, the *KL divergence* from it
([`kl_estimates`][minillm.training.divergence.kl_estimates]), and a better verifier,
here one that gives a share of the reward for each digit in its place:

>>> scores("in order, KL 0.1"), scores("each position")
([0.3, 0.34, 0.44], [0.56, 0.6, 0.72])

The penalty keeps what there was and teaches nothing; the better verifier teaches as
much as the exact one (0.61, 0.49, 0.69).

Where no program can check an answer, the verifier itself is learned, and the policy
finds out where it is wrong: [`minillm.labs.judges`][].

# 7. Prefer

Often nobody can say what an answer is worth, only which of two is better. From such
pairs, [`minillm.training.preferences`][] derives a loss that needs neither a reward nor
samples while it trains: [`dpo_loss`][minillm.training.preferences.dpo_loss]. With pairs
of a right and a wrong answer to the same problem, out of 51,200 samples:

>>> scores("pairs")
[0.45, 0.52, 0.63]

Better than the demonstrations alone, which had 0.32, 0.32 and 0.44; not as good as
eight rounds of imitation with as many samples (which took 800 steps; this took 200, on
the samples of a single round).

Two things puzzle many readers. The loss starts at $\ln 2 = 0.69$, whatever the pairs
are: model and reference are still the same, and each pair is a coin toss. And here are
the mean log-probabilities of the chosen answers and of the rejected ones, at three
steps:

>>> for r in runs("pairs"):
...     steps = {row[0]: row for row in r["curve"]}
...     sides = [tuple(round(x, 1) for x in steps[i][2:4]) for i in (1, 50, 200)]
...     print(round(steps[1][1], 2), sides)
0.69 [(-0.8, -3.5), (-2.9, -10.7), (-1.9, -16.2)]
0.69 [(-0.7, -4.0), (-1.8, -10.7), (-0.8, -14.0)]
0.69 [(-0.7, -3.1), (-1.6, -9.6), (-0.8, -16.2)]

*Both* fall at first. The loss asks for a difference, and that can be had by making the
rejected answers impossible.

# Your turn

Each takes a few minutes, and begins with a guess.

1. *What would half as many samples a problem do?* `minillm lab posttraining --quick
   --set samples=4`. Count the groups that agree.
2. *Does a KL penalty cost anything where the reward is right?* `minillm lab
   posttraining --quick --set kl=0.1`, and `runs("KL 0.1")` for three seeds.
3. *A mean over tokens gives long answers more weight.* Does a mean over sequences
   change anything, on the task whose answers differ in length? Compare `runs("policy,
   split")` with `runs("split, mean over sequences")`, and say how sure you are.
4. *Sample at one temperature, score at another.* Every ratio is then wrong from the
   first step on. What will `runs("sampled at 0.5")` say, and `runs("sampled and scored
   at 0.5")`, where the ratios are right again?
5. *A worse judge*: `minillm lab posttraining --quick --set reward=learned --set
   judged=64`. Does the truth fall sooner?

`minillm lab posttraining` runs all
[`VARIANTS`][minillm.labs.posttraining.VARIANTS], three seeds each.

# What we leave out

A value network (PPO's
own baseline); rewards for steps on the way; tools. The models are small and the tasks
are made up; whether it carries over to large ones is the question of chapter 10.

# References

Liu et al. 2025, arXiv:2503.20783. Rafailov et al. 2023, arXiv:2305.18290. Schulman et
al. 2017, arXiv:1707.06347. Shao et al. 2024, arXiv:2402.03300. Williams 1992, *Simple
statistical gradient-following algorithms*, Machine Learning 8. Yue et al. 2025,
arXiv:2504.13837.
"""

from minillm.training.divergence import kl_estimates
from minillm.training.imitation import sft_loss
from minillm.training.policy import group_advantages, log_probs, policy_loss
from minillm.training.preferences import dpo_loss

__all__ = [
    "dpo_loss",
    "group_advantages",
    "kl_estimates",
    "log_probs",
    "policy_loss",
    "sft_loss",
]

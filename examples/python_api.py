"""Load data, make a mask, fit the SPIRiT stack to it in closed form, and score it.

python examples/python_api.py
"""

from kscout.data import DATA
from kscout.evaluation import evaluate, summarise
from kscout.learning.closed_form import fit_closed_form
from kscout.recon import SpiritNet
from kscout.sampling import Budget, build_sampler

splits = DATA["brain"](n_train=4, n_val=0, n_test=2, slices=(66, 74), snr_db=30)
mask = build_sampler("caipirinha", Budget.of(splits["train"].shape, acceleration=4), seed=0).mask()
net = SpiritNet(splits["train"].n_coils, n_blocks=2, kernel_size=5)
fit_closed_form(net, mask, splits["train"], seed=0, n_equations=50_000)
print(summarise(evaluate(mask, net, splits["test"], split="test"))["test"]["psnr"])

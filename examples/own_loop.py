"""A loss in a loop of one's own: DPO on two answers, without agents, engines or environments."""

import torch

from llmgym.demo import TINY_PATH
from llmgym.learn.losses import DPOLoss
from llmgym.learn.pairing import collate_pairs
from llmgym.learn.policy import Policy
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.transcript import transcribe
from llmgym.types import Message

model, tokenizer = load_causal_lm(TINY_PATH)  # or the path of any causal LM with a chat template
codec, policy = ChatCodec(tokenizer), Policy(model)
loss = DPOLoss(policy, beta=0.1)
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

prompt = [Message("user", "Which service fails?")]
chosen, rejected = (transcribe(codec, prompt, [Message("assistant", answer)]) for answer in ("payments", "gateway"))
batch = collate_pairs([(chosen, rejected)])
with torch.no_grad():
    batch["ref_log_probs"] = policy.log_probs(batch)
for step in range(5):
    optimiser.zero_grad()
    output = loss(batch)  # a TensorDict: loss_* to differentiate, the rest to look at
    output["loss_dpo"].backward()
    optimiser.step()
    print(f"step {step}: loss {output['loss_dpo']:.4f}, margin {output['margin']:.4f}")

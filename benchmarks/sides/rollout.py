"""Any engine of llmgym, asked as the collector asks it: submit, wait, submit what goes on.

It returns tokens and their log-probabilities as Python lists, each request with its own seed.
"""

from benchmarks.work import Work
from llmgym.config.sections import Sampling
from llmgym.engines.base import Engine, GenerationRequest


def rollout(engine: Engine, work: Work) -> list[list[list[int]]]:
    """Do a work; return the tokens of each reply, by episode and turn."""
    contexts = [list(prompt) for prompt in work.prompts]
    replies: list[list[list[int]]] = [[] for _ in contexts]

    def request(episode: int) -> GenerationRequest:
        turn = len(replies[episode])
        seed = (work.seed << 64) + (episode << 16) + turn
        length = work.lengths[episode][turn]
        return GenerationRequest(episode, episode, list(contexts[episode]), length, (), Sampling(), seed)

    engine.submit([request(episode) for episode in range(len(contexts))])
    over = 0
    while over < len(contexts):
        alive, done = [], []
        for completion in engine.wait():
            episode = completion.request_id
            assert len(completion.log_probs) == len(completion.tokens)
            replies[episode].append(completion.tokens)
            contexts[episode] += completion.tokens
            if len(replies[episode]) < work.turns:
                contexts[episode] += work.bridge
                alive.append(episode)
            else:
                done.append(episode)
        engine.submit([request(episode) for episode in alive])
        engine.release(done)
        over += len(done)
    return replies

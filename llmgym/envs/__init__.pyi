from .tasks import TaskEnv as TaskEnv
from .text_env import TextEnv as TextEnv
from .vector import TextVectorEnv as TextVectorEnv

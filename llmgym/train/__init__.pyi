from .offline import offline_trainer as offline_trainer
from .online import online_trainer as online_trainer
from .resuming import past_of as past_of
from .rewards import reward_trainer as reward_trainer
from .trainer import Result as Result
from .trainer import Trainer as Trainer

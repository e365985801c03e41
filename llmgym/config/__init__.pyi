from .base import Config as Config
from .command_line import Kwargs as Kwargs
from .command_line import parse_command_line as parse_command_line
from .plain import read_yaml as read_yaml

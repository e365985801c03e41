from .playing import Played as Played
from .playing import play as play
from .subjects import Subject as Subject
from .subjects import subjects_of as subjects_of
from .summary import Summary as Summary
from .summary import summarise as summarise
from .table import print_summaries as print_summaries

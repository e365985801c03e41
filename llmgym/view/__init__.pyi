from .answers import Answers as Answers
from .report import write_report as write_report
from .runs import Run as Run
from .runs import open_runs as open_runs
from .server import serve as serve

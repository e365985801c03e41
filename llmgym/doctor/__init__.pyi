from .diagnosis import PHASES as PHASES
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose as diagnose
from .installation import Installation as Installation
from .installation import Package as Package
from .installation import look as look

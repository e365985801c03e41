from .installation import Installation as Installation
from .installation import Package as Package
from .installation import look as look

"""The house of the design: floors, groups that never meet, YAML that mirrors constructors, one place for Hydra."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokenrl_cli
from tokenrl_cli.build import PACKAGE, RUNTIME, check, is_block, locate
from tokenrl_cli.commands.list import listed
from tokenrl_cli.recipes import BRINGS, about, brought, choices, conf_dir, groups, options, roots
from tokenrl_cli.typecheck import parameters_of

HOME = Path(tokenrl_cli.__file__).parent
GROUPS = ("model", "dataset", "tokenizer", "reward", "credit", "algorithm", "tracker")
FLOORS = (  # from the ground up; a module imports from its own floor or from below

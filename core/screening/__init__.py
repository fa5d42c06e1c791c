"""Screening of training data: rows that look unsafe are told, dropped or refused before anything is trained."""
